"""The CNI protocol (spec 1.1.0) for any plugin: nothing here knows about flannel or Linux links."""

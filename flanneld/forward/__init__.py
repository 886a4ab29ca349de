"""The udp backend's forwarding path: packets between a TUN device and a UDP socket."""

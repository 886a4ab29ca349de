"""What is installed on a node: builds beside each other, one of which is current, and units."""

"""Masquerading and forwarding rules: their text, and keeping them in iptables or nftables."""

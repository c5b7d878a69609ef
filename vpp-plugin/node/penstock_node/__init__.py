"""What touches the node's kernel: devices, routes, rules, nft, ARP and NDP. Knows nothing of load balancing."""

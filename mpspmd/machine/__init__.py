"""What this machine allows: cores, memory, threads, network."""

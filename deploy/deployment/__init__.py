"""What a deployment does on the host, as root, with nothing but the standard library."""

"""The bridge: the head's process that copies the rings' bytes to and from other nodes."""

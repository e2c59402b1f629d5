"""A recording: the file with all requests and replies of an engine, for mpspmd-replay."""

"""run(): one script that is an engine and its ranks, however it is started."""

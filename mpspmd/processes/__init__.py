"""Starting, watching and ending processes, and the files of a run."""

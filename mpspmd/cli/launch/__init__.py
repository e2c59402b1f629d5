"""mpspmd-launch: the process that starts and watches a launched run."""

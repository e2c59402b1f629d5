"""Reading what a run does, from inside and from outside."""

"""The engine, the loop that every rank runs, and what watches over both."""

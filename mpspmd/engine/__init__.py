"""The engine: the one process that decides. `engine.py` makes its parts:

- a call: a program makes it with `calls.py`, `aio.py` or `steps.py`; `call.py` is one call and the table
  of all, and with `future.py` a caller may wait for it later
- its request: `sender.py`, with `requests.py`, or `recording.py` if requests are recorded
- its replies: `reader.py`, with `late.py`; `turns.py` lets threads wait for their turn to send or to read
- failures, in the thread of `supervisor.py`: `observer.py` makes `events.py` of what it notices,
  `blame.py` judges them, `consequences.py` does what follows, `outcome.py` knows why the run is over
- slow calls and starts: `stall.py`, with `rank_stacks.py`
- processes and files: `ranks.py` and `run_files.py`; `ending.py` ends them, and `inherited.py` is for
  processes that are forked from the engine's
"""

"""The engine: the one process that decides. `engine.py` makes its parts:

- calls: `calls.py`, `aio.py` and `steps.py` have the methods that make one, and `call.py` has the call
  and the table of all calls; a caller that doesn't wait gets a future of `future.py`
- requests: `sender.py` sends them; `requests.py` encodes them, or `recording.py` if they are recorded
- replies: `reader.py` takes them, and `late.py` those of failed calls; with `turns.py` a thread waits for
  its turn to send or to read
- failures: in the thread of `supervisor.py`, `observer.py` makes events (`events.py`) of what it notices,
  `blame.py` judges them, `consequences.py` carries out the verdict, and `outcome.py` keeps why the run is
  over; other threads report to this one through `event_queue.py`
- slow calls and starts: `stall.py` warns of them, and `rank_stacks.py` asks the ranks for their stacks
- processes and files: `ranks.py` and `run_files.py` make them, `ending.py` ends the run; `inherited.py` is
  for processes that are forked from the engine's
"""

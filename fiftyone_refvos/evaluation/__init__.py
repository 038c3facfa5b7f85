"""The parts of `rv.evaluate`: reading videos, scoring them in processes, the run and its results.

`scoring` is imported by worker processes, and neither it nor this file imports FiftyOne or torch.
"""

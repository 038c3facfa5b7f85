"""Masklets written into the formats that other programs train on, evaluate, or receive as submissions.

`reading` turns samples into the records that importers make of files; `formats` (one file per format) write records,
without FiftyOne; `exporter` is what `dataset.export` calls.
"""

"""Masks that other programs have made: submission folders and archives, Sa2VA's and YouTube-VIS' result files.

Each source reads one expression of one video at a time, without FiftyOne; `fiftyone_refvos.import_predictions`
writes them into a field.
"""

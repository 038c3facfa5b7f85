"""Published RefVOS datasets in their official layouts; `fiftyone_refvos.types` makes FiftyOne datasets of them.

`layouts` (one file per dataset) parse files into `records`, without FiftyOne; `importer` turns records into
samples. Exporters turn samples into records again.
"""

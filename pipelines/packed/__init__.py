"""Images in shards: WebDataset's tars, TFRecord and RecordIO files, found, indexed, read and written."""

"""What exists: the artifacts, their names as paths, their records and aspects. Bytes are the cache's business."""

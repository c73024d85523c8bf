"""New files on their way to the platform: the spool on disk, its journal, and what sends them."""

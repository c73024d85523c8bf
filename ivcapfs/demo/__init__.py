"""`ivcapfs demo`: the main job shown on this machine alone, with a platform, sample files and a mount of its own.

Used by the command line. `tour` is what is shown, `stage` what it is shown on, `samples` the files.
"""

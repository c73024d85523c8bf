"""The benchmark: ivcapfs beside its peers, on the same bytes, in turn and repeated. Started by `scripts/bench`.

    cli         the command: options, the outputs
    runner      which work with which peer, in which order; failures stay with the peer that failed
    works       what is timed                 counting    what is asked of the server
    peer        who is timed                  targets     what ivcapfs has promised
    peers  ours                               all of them
    world       nginx, platforms, shaper, files: everything that a run needs, and its end
    nginx  platforms  content  shaper         the parts of the world
    processes  mounts                         child processes and mounts, bounded in time
    figures     samples -> medians, ratios, JSON
    table  svg  markdown                      figures -> terminal, plot, docs/PERFORMANCE.md
    fio  machine                              helpers; fsspec_mount and sdk_read run as programs of their own

Not part of the package that users install. Everything runs on the main thread, but for the embedded platforms, which
serve in threads of their own.
"""

"""Looking at files at the moment they are written, in a process of its own.

`places` says where, `fanotify` and `changes` hear of it, `gate` holds back the opening of files,
`watch` does the work, and `child` keeps the process running.
"""

"""The command ``unival``. It lives outside ``unival_plugin`` because importing that package loads torch and fairseq."""

"""What a run's folder holds from its first moment."""

import shlex
from contextlib import closing

from tests.helpers.configuration import compose_settings
from tracefl.conf.cli import command_line
from tracefl.records.folder import RunFolder
from tracefl.records.run import StoredRun


def test_the_command_that_was_typed_is_kept(tmp_path):
    settings = compose_settings(f"log_dir={tmp_path}", "run_name=run")
    typed = ["model=gpt", "resume=true", "overwrite=true", "dataset.path=/my data/${dataset.name}"]
    with closing(RunFolder(settings.folder, settings, command_line(typed))) as folder:
        folder.begin(resume=False)
    command = StoredRun(settings.folder).command
    assert shlex.split(command) == ["python", "-m", "tracefl.main", typed[0], typed[3]]
    with closing(RunFolder(settings.folder, settings)) as folder:
        folder.begin(resume=False)  # from Python
    assert StoredRun(settings.folder).command is None

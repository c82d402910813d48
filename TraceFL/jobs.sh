# shellcheck shell=bash
# What the job scripts share: sourced with the name of the script's runs and what the user gave.
if [[ -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091  # made by `make run`
    source .venv/bin/activate
fi
if ! python -c 'import tracefl' 2>/dev/null; then
    echo "tracefl: no Python with tracefl here; run \`make run\` once in $PWD, or activate its environment" >&2
    exit 2
fi
# In this process's place: so SLURM's signals, and Ctrl-C, reach the one who passes them on to the run in hand.
exec python -m tracefl jobs "$@"

#!/usr/bin/env bash
# usage: down.sh FOLDER -- cancel the jobs and end, by their pid files, the daemons that up.sh FOLDER started.
folder=$1
export SLURM_CONF=$folder/slurm.conf
scancel --user "$(id -un)" 2> /dev/null
for name in slurmd slurmctld munged; do
  [ -s "$folder/$name.pid" ] || continue
  pid=$(cat "$folder/$name.pid")
  kill "$pid" 2> /dev/null
  for _ in $(seq 100); do
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.1
  done
done
true

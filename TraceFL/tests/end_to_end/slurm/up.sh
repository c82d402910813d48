#!/usr/bin/env bash
# usage: up.sh FOLDER -- start a one-node SLURM on loopback, everything below FOLDER, and wait until it takes jobs.
# FOLDER must be readable by all (munged refuses its socket below a private folder). down.sh ends it.
set -euo pipefail
export PATH=$PATH:/usr/sbin
folder=$1
node=$(hostname -s)
user=$(id -un)
mkdir -p "$folder"/{bin,log,munge,spool,state}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# No slurmdbd here, so submitit's question to sacct is answered from slurmctld's memory.
cat > "$folder/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
echo "JobID|State|NodeList"
while [ $# -gt 0 ]; do
  if [ "$1" = -j ]; then
    shift
    scontrol -o show job "$1" 2>/dev/null | awk '{
      split("", f)
      for (i = 1; i <= NF; i++) { p = index($i, "="); f[substr($i, 1, p - 1)] = substr($i, p + 1) }
      task = f["ArrayTaskId"]
      if (task != "" && task !~ /^[0-9]+$/) task = "[" task "]"
      print (task == "" ? f["JobId"] : f["ArrayJobId"] "_" task) "|" f["JobState"] "|" f["NodeList"]
    }'
  fi
  shift
done
SACCT
chmod 755 "$folder/bin/sacct"

cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
KillWait=2
MinJobAge=3600
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(env -u OMP_NUM_THREADS nproc) State=UNKNOWN
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

(umask 077 && head -c 128 /dev/urandom > "$folder/munge/key")
munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" --num-threads=2
for _ in $(seq 100); do
  munge -S "$folder/munge/socket" -n > /dev/null 2>&1 && break
  sleep 0.1
done
slurmctld -c
slurmd -N "$node"
for _ in $(seq 200); do
  if sinfo -h -o %t 2> /dev/null | grep -q '^idle$'; then exit 0; fi
  sleep 0.1
done
echo "the node never became idle" >&2
tail -n 20 "$folder"/log/*.log >&2
exit 1

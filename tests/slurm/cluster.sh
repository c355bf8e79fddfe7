#!/bin/sh
# A real SLURM with two virtual nodes on this machine, all of it below one folder:
#   sh tests/slurm/cluster.sh start <folder>     then: export SLURM_CONF=<folder>/slurm.conf
#   sh tests/slurm/cluster.sh stop <folder>      ends what was started; the folder stays
# Needs root and Debian's slurm-wlm and munge; no systemd, nothing outside the folder.
set -eu

start() {
    mkdir -p "$folder/munge" "$folder/ctld"
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2>/dev/null
    chmod 600 "$folder/munge/key"
    cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
# A requeued job starts again after the life of its credential: 120 seconds where nothing is said.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/ctld
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool-%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
MpiDefault=none
ReturnToService=2
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[16821-16822] CPUs=1
PartitionName=test Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
    # --force: the folder may be readable to root alone.
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld
    slurmd -N n1
    slurmd -N n2
    tries=0
    until [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" = 2 ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            tail -n 20 "$folder"/*.log >&2
            stop
            exit 1
        fi
        sleep 0.2
    done
}

stop() {
    scancel --user=root 2>/dev/null || :
    tries=0 # a cancelled job has 30 seconds to end
    while [ -n "$(squeue --noheader 2>/dev/null)" ] && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.5
    done
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || :; fi
    done
}

folder=$2
host=$(hostname -s)
export SLURM_CONF="$folder/slurm.conf"
"$1"

#!/usr/bin/env bash
# A one-node SLURM on this machine, for tests: slurm/cluster.sh install | up [--without-accounting] | down
#
# Needs root and Debian's packages (install). Everything it writes lies in one folder, ports and
# sockets are its own, so it disturbs no other SLURM. Use it with: eval "$(slurm/cluster.sh env)"
set -euo pipefail

ROOT=${MTO_SLURM_ROOT:-/tmp/mto-slurm}
CTLD_PORT=${MTO_SLURM_PORT:-26817}
DBD_PORT=$((CTLD_PORT + 2))
SQL_PORT=$((CTLD_PORT + 3))
NODE=$(hostname -s)
CPUS=${MTO_SLURM_CPUS:-8}

install() {
  export DEBIAN_FRONTEND=noninteractive
  if ! { command -v slurmctld && command -v slurmdbd && command -v mariadbd && command -v munged; } >/dev/null; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm slurmdbd mariadb-server munge
  fi
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
  local left=$(($1 * 10)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((left-- > 0)) || { echo "cluster.sh: $what did not come up; see $ROOT/log" >&2; exit 1; }
    sleep 0.1
  done
}

start() { # start NAME COMMAND...: in the background, its pid kept
  local name=$1
  shift
  setsid "$@" >>"$ROOT/log/$name.out" 2>&1 </dev/null &
  echo $! >"$ROOT/run/$name.pid"
}

configure() {
  local accounting=$1
  cat >"$ROOT/slurm.conf" <<CONF
ClusterName=mto
SlurmctldHost=$NODE(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$CTLD_PORT
SlurmdPort=$((CTLD_PORT + 1))
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=5
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool
SlurmctldPidFile=$ROOT/run/slurmctld.real.pid
SlurmdPidFile=$ROOT/run/slurmd.real.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
OverTimeLimit=0
MinJobAge=${MTO_SLURM_MIN_JOB_AGE:-300}
MaxArraySize=1001
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=0,sched_interval=2
SlurmdParameters=config_overrides
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=$NODE MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
CONF
  if [[ $accounting == yes ]]; then
    cat >>"$ROOT/slurm.conf" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$ROOT/run/munge.socket
CONF
    cat >"$ROOT/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=$ROOT/run/munge.socket
DbdHost=$NODE
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=root
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.real.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
CONF
    chmod 600 "$ROOT/slurmdbd.conf"
  else
    echo "AccountingStorageType=accounting_storage/none" >>"$ROOT/slurm.conf"
  fi
}

start_munge() {
  dd if=/dev/urandom of="$ROOT/munge/key" bs=1024 count=1 status=none
  chmod 600 "$ROOT/munge/key"
  start munged munged --foreground --force --key-file="$ROOT/munge/key" \
    --socket="$ROOT/run/munge.socket" --pid-file="$ROOT/run/munged.real.pid" \
    --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/munge/seed"
  wait_for 20 munged munge -S "$ROOT/run/munge.socket" -n
}

start_database() {
  mariadb-install-db --no-defaults --user=root --datadir="$ROOT/sql" \
    --auth-root-authentication-method=normal --skip-test-db >"$ROOT/log/sql-install.out" 2>&1
  start mariadbd mariadbd --no-defaults --user=root --datadir="$ROOT/sql" \
    --socket="$ROOT/run/sql.socket" --pid-file="$ROOT/run/mariadbd.real.pid" \
    --bind-address=127.0.0.1 --port="$SQL_PORT" --innodb-buffer-pool-size=64M \
    --innodb-lock-wait-timeout=900
  wait_for 60 mariadbd mariadb --no-defaults -u root -S "$ROOT/run/sql.socket" -e "select 1"
  mariadb --no-defaults -u root -S "$ROOT/run/sql.socket" -e \
    "create database slurm_acct; grant all on slurm_acct.* to 'slurm'@'127.0.0.1' identified by 'slurm';
     grant all on slurm_acct.* to 'slurm'@'localhost' identified by 'slurm';"
  SLURM_CONF="$ROOT/slurm.conf" start slurmdbd slurmdbd -D
  wait_for 60 slurmdbd bash -c "exec 3<>/dev/tcp/127.0.0.1/$DBD_PORT"
  wait_for 30 sacctmgr sacctmgr -i add cluster mto
}

up() {
  local accounting=yes
  [[ ${1:-} == --without-accounting ]] && accounting=no
  [[ -e $ROOT ]] && down
  mkdir -p "$ROOT"/{run,log,state,spool,munge,sql}
  chmod 755 "$ROOT" "$ROOT/run" && chmod 700 "$ROOT/munge"
  configure "$accounting"
  export SLURM_CONF="$ROOT/slurm.conf"
  start_munge
  if [[ $accounting == yes ]]; then start_database; fi
  start slurmctld slurmctld -D
  wait_for 30 slurmctld scontrol ping
  start slurmd slurmd -D -N "$NODE"
  wait_for 60 slurmd bash -c "[[ \$(sinfo -h -o %t -p main) == idle* ]]"
  sinfo
}

down() {
  local name pid
  export SLURM_CONF="$ROOT/slurm.conf"
  scancel --user root >/dev/null 2>&1 || true
  for name in slurmd slurmctld slurmdbd mariadbd munged; do
    [[ -f $ROOT/run/$name.pid ]] || continue
    pid=$(cat "$ROOT/run/$name.pid")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -rf "$ROOT"
}

case ${1:-} in
  install) install ;;
  up) up "${2:-}" ;;
  down) down ;;
  env) echo "export SLURM_CONF=$ROOT/slurm.conf" ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

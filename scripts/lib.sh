# shellcheck shell=bash
# What the scripts in this folder share. Sourced, never run:
#
#   setup EXTRA           server, test or bench: system packages and the virtual environment; returns at once when
#                         nothing is to do
#   fuse_mounts           the ivcapfs mounts of this machine, one line each
#   leftovers_clean       looks for what a tagged run left behind, and removes it
#
# Environment: IVCAPFS_VENV (the virtual environment, default .venv in the project), IVCAPFS_PYTHON (the interpreter
# to make it from).

unset CDPATH
unset PYTHONDONTWRITEBYTECODE # each mount is a process, and would compile every module again
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$(realpath -m -- "${IVCAPFS_VENV:-$root/.venv}")
marker=.ivcapfs-venv         # in an environment of ours, from the beginning
stamp=$venv/.ivcapfs-stamp   # in a complete one: what it was made from

say() { printf 'ivcapfs: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- system packages -------------------------------------------------------------------------------------------------

# A Debian package and the command, or the library, by whose presence it is recognised.
# shellcheck disable=SC2034 # read by name, in missing_packages
packages_server=(fuse3:fusermount3 attr:getfattr)
# shellcheck disable=SC2034
packages_bench=("${packages_server[@]}" nginx-light:nginx rclone:rclone fio:fio curl:curl openssl:openssl
  libfuse2:libfuse.so.2)
# shellcheck disable=SC2034
packages_image=(buildah:buildah debootstrap:debootstrap procps:ps)
# shellcheck disable=SC2034
packages_test=("${packages_server[@]}" rsync:rsync sqlite3:sqlite3 unzip:unzip zip:zip file:file procps:ps git:git util-linux-extra:fincore
  openssl:openssl systemd:systemd-analyze zsh:zsh fish:fish vim:vim)

have() { type -P -- "$1" >/dev/null; }
have_library() { PATH=$PATH:/sbin ldconfig -p | grep -wF -e "$1" >/dev/null; }

# The first interpreter that is new enough and can make a virtual environment. Each candidate is run, not only looked
# for: a version manager's shim may exist without the version behind it, and Debian's python3 lacks ensurepip without
# python3-venv.
find_python() {
  local name path
  for name in ${IVCAPFS_PYTHON:+"$IVCAPFS_PYTHON"} python3.13 python3.12 python3.11 python3; do
    while IFS= read -r path; do
      if "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' </dev/null &>/dev/null; then
        printf '%s\n' "$path"
        return 0
      fi
    done < <(PATH=$PATH:/usr/bin type -aP -- "$name")
  done
  return 1
}

# missing_packages EXTRA: those not there, one a line.
missing_packages() {
  local list="packages_$1[@]" entry
  for entry in "${!list}"; do
    case "${entry#*:}" in
      *.so.*) have_library "${entry#*:}" || printf '%s\n' "${entry%%:*}" ;;
      *) have "${entry#*:}" || printf '%s\n' "${entry%%:*}" ;;
    esac
  done
  if ! venv_works && ! find_python >/dev/null; then
    printf '%s\n' python3 python3-venv
  fi
}

install_packages() {
  local -a as_root=() options=(-y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
  if ! have apt-get; then
    die "needed, and not installed: $* (these are Debian's names; your system may have others)"
  fi
  if ((EUID != 0)); then
    if have sudo && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      say "needed, and not installed: $*. As root:"
      say "    apt-get update && apt-get install -y --no-install-recommends $*"
      exit 1
    fi
  fi
  say "installing Debian packages: $*"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@"; } \
    </dev/null >"$log" 2>&1 9>&-; then
    cat -- "$log" >&2
    rm -f -- "$log"
    die "could not install $*"
  fi
  rm -f -- "$log"
}

# --- virtual environment ---------------------------------------------------------------------------------------------

# stamp_for EXTRAS: what the stamp file says when the environment is complete. Fails when its Python does not run.
stamp_for() {
  local version hash
  version=$("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) || return 1
  hash=$(sha256sum <"$root/pyproject.toml")
  printf 'venv %s\npython %s\nproject %s\npyproject %s\nextra %s\n' "$venv" "$version" "$root" "${hash%% *}" "$1"
}

# stamped_extras: what a complete environment was made for, with commas between; nothing where there is none.
stamped_extras() { sed -n 's/^extra //p' -- "$stamp" 2>/dev/null || true; }

# venv_is_ready EXTRA: complete for it; every environment is also the server's.
venv_is_ready() {
  local extras
  extras=$(stamped_extras)
  [[ -n $extras && $(<"$stamp") == "$(stamp_for "$extras")" ]] || return 1
  [[ $1 == server || ,$extras, == *,"$1",* ]]
}

# It runs, it was finished (an interrupted set-up leaves no stamp), it was not moved, and its Python is the same.
venv_works() {
  [[ -f $stamp ]] || return 1
  local now
  now=$(stamp_for any) || return 1
  [[ $(head -n 2 -- "$stamp") == "$(head -n 2 <<<"$now")" ]]
}

venv_make() {
  local python
  python=$(find_python) || die "no Python 3.11 or newer with venv and ensurepip found"
  if [[ -e $venv && $venv != "$root/.venv" && ! -f $venv/$marker && -n $(ls -A -- "$venv") ]]; then
    die "$venv was not made by these scripts: not touched"
  fi
  say "making $venv with $python"
  rm -rf -- "$venv"
  mkdir -- "$venv"
  : >"$venv/$marker"
  "$python" -m venv "$venv"
}

# venv_fill EXTRA: under the lock. It never shrinks: an environment for the tests stays one.
venv_fill() {
  local extras
  venv_works || venv_make
  extras=$(stamped_extras)
  if [[ ,$extras, != *,"$1",* ]]; then
    extras=${extras:+$extras,}$1
  fi
  rm -f -- "$stamp"
  say "installing ivcapfs[$extras] and what it depends on"
  # Not compiled: Python does that with what is imported, a tenth of it.
  "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-compile \
    --editable "${root}[$extras]" </dev/null 9>&-
  stamp_for "$extras" >"$stamp.new"
  mv -- "$stamp.new" "$stamp"
}

# setup EXTRA
setup() {
  local -a missing
  mapfile -t missing < <(missing_packages "$1")
  if ((${#missing[@]} == 0)) && venv_is_ready "$1"; then
    return 0
  fi
  mkdir -p -- "$(dirname -- "$venv")"
  exec 9>"$venv.lock"
  if have flock; then
    flock 9
  fi
  # Another script may have done it meanwhile.
  mapfile -t missing < <(missing_packages "$1")
  if ((${#missing[@]})); then
    install_packages "${missing[@]}"
  fi
  if ! venv_is_ready "$1"; then
    venv_fill "$1"
  fi
  exec 9>&-
}

# --- what a run leaves behind ----------------------------------------------------------------------------------------
# A run is tagged by an environment variable, which its children inherit and which stays readable in /proc. Mounts are
# compared with those of before the run. What was there before is never touched.

# fuse_mounts: "<mount id> <device> <mount point as in mountinfo>" of each ivcapfs mount. Never touches the mount.
fuse_mounts() {
  local id device point rest
  while read -r id _ device _ point rest; do
    case "${rest#* - } " in
      fuse.ivcapfs\ * | fuse\ ivcapfs\ *) printf '%s %s %s\n' "$id" "$device" "$point" ;;
    esac
  done </proc/self/mountinfo
}

# tagged_processes NAME=VALUE: ids of the processes whose environment has exactly that.
tagged_processes() {
  local path
  while IFS= read -r path; do
    path=${path#/proc/}
    printf '%s\n' "${path%/environ}"
  done < <(grep -lsxzF -e "$1" /proc/[0-9]*/environ)
}

# A mount that appeared meanwhile is the run's when it lies in a folder of pytest's that no living pytest owns, or when
# it lies in the temporary folder and nobody answers there any more.
mount_is_ours() {
  local point=$1 tmp pid folder
  tmp=$(realpath -m -- "${TMPDIR:-/tmp}")
  [[ $point == "$tmp"/* ]] || return 1
  if [[ $point =~ ^("$tmp"/pytest-of-[^/]+/pytest-[0-9]+)/ ]]; then
    folder=${BASH_REMATCH[1]}
    if pid=$(cat -- "$folder/.lock" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ && -d /proc/$pid ]]; then
      return 1
    fi
    return 0
  fi
  LC_ALL=C timeout -k 1 3 stat -f -- "$point" 2>&1 >/dev/null | grep -q 'not connected'
}

# leftover_mounts BEFORE
leftover_mounts() {
  local line point
  while IFS= read -r line; do
    if ! grep -qxF -e "$line" <<<"$1"; then
      point=$(printf '%b' "${line#* * }") # mountinfo writes a space as \040
      if mount_is_ours "$point"; then
        printf '%s\n' "$point"
      fi
    fi
  done < <(fuse_mounts)
}

# leftovers_clean TAG BEFORE: waits a moment for what is just ending, then shows and removes the rest; fails if there
# was any.
leftovers_clean() {
  local tag=$1 before=$2 found=0 attempt
  local -a mounts pids
  for attempt in {1..25}; do
    mapfile -t mounts < <(leftover_mounts "$before")
    mapfile -t pids < <(tagged_processes "$tag")
    ((${#mounts[@]} + ${#pids[@]})) || return 0
    ((attempt == 25)) || sleep 0.2
  done
  # Twice: ending the processes may reveal mounts of theirs that nobody answers for now.
  for attempt in 1 2; do
    mapfile -t mounts < <(leftover_mounts "$before")
    unmount_left "${mounts[@]}"
    mapfile -t pids < <(tagged_processes "$tag")
    end_left "${pids[@]}"
    found=$((found + ${#mounts[@]} + ${#pids[@]}))
  done
  ((found == 0))
}

unmount_left() {
  local point
  for point in "$@"; do
    say "left mounted, unmounting: $point"
    fusermount3 -u -z -- "$point" || { ((EUID == 0)) && umount -l -- "$point"; } || say "could not unmount $point"
  done
}

end_left() {
  local pid attempt
  (($#)) || return 0
  for pid in "$@"; do
    say "left running, ending: $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)"
  done
  kill -TERM "$@" 2>/dev/null || true
  for attempt in {1..15}; do
    kill -0 "$@" 2>/dev/null || return 0
    sleep 0.2
  done
  kill -KILL "$@" 2>/dev/null || true
}

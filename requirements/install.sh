#!/bin/sh
# Make a virtual environment with everything that mmpeft, its demo and its tests need: sh requirements/install.sh .venv
# `make` runs this. Each step leaves its pins in the environment when it has succeeded and is skipped while they are the
# same, so a run that was interrupted, or stopped by an error, is simply started again.
set -eu
cd "$(dirname "$0")/.."
venv=$1
PYTHON=${PYTHON:-python3}

# The interpreter's own flags ask for debug symbols, which more than double the time to compile.
export CFLAGS="${CFLAGS:-} -g0" CXXFLAGS="${CXXFLAGS:-} -g0"
export MAX_JOBS="${MAX_JOBS:-$(nproc 2>/dev/null || echo 2)}"

say() { printf '\n== %s\n' "$@"; }
stop() { { echo; printf '** %s\n' "$@"; } >&2; exit 1; }
python() { "$venv/bin/python" "$@"; }
pip() { python -m pip --disable-pip-version-check "$@"; }

# install STEP "PIN FILES" [PIP OPTION ...]: a pip that was killed may have left half a package behind that looks whole,
# so the second attempt installs every one anew.
install() {
    step=$1 files=$2
    shift 2
    for file in $files; do set -- "$@" -r "requirements/$file.txt"; done
    if [ -e "$venv/$step.begun" ]; then
        echo 'This step did not end well before; it starts over.'
        set -- --force-reinstall "$@"
    fi
    touch "$venv/$step.begun"
    pip install "$@" || stop 'pip failed: the reason is above.' \
        'Often it is the network (a proxy? PIP_INDEX_URL?) or a full disk (8 GB are enough). Then run make again.'
}
pins() { for file in $1; do cat "requirements/$file.txt"; done; }
is_done() { pins "$2" | cmp -s - "$venv/$1.done"; }
finish() { pins "$2" > "$venv/$1.done"; rm "$venv/$1.begun"; }

create() {
    for python in $PYTHON; do
        "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break
        python=
    done
    [ "$python" ] || stop "No Python 3.10, 3.11, 3.12 or 3.13 found as: $PYTHON. The OpenMMLab libraries run on these." \
        'Install one, or say where it is: make setup PYTHON=/path/to/python3.12'
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$python has no venv module." 'Debian, Ubuntu: apt install python3-venv. Then run make again.'
    "$python" -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        stop "$python has no header files (Python.h) to compile with." \
            'Debian, Ubuntu: apt install python3-dev. Then run make again.'
    "${CXX:-g++}" --version >/dev/null 2>&1 ||
        stop "No C++ compiler (${CXX:-g++})." 'Debian, Ubuntu: apt install build-essential. Then run make again.'
    if [ -e "$venv" ] && [ ! -e "$venv/by-make" ]; then
        stop "$venv is there, and make did not make it." "Move it away, or install mmpeft into it as README.md says."
    fi
    rm -rf "$venv"
    mkdir "$venv"
    touch "$venv/by-make"
    "$python" -m venv "$venv"
    touch "$venv/created"
}

mmcv_fits() {
    python -c "
import mmcv.ops, torch
raise SystemExit(torch.cuda.is_available() and mmcv.ops.get_compiling_cuda_version() == 'not available')" 2>/dev/null
}

printf '%s\n' "Setting up $venv. The first time takes 10 to 15 minutes on 2 cores; compiling mmcv (step 4) is most of it." \
    'It may be interrupted: the next make goes on from the last finished step.'

if [ ! -e "$venv/created" ]; then
    say '1/5 The virtual environment'
    create
fi

if ! is_done torch 'torch locked'; then
    say '2/5 PyTorch: a download of 0.2 GB (CPU) to 3 GB (CUDA)'
    install torch torch -c requirements/locked.txt
    finish torch 'torch locked'
fi

libraries='mm demo hub tensorboard timm test locked'
if ! is_done libraries "$libraries"; then
    say '3/5 The OpenMMLab libraries and what they need: about 2 minutes'
    install libraries "$libraries" --no-deps --no-build-isolation --quiet
    # opencv-python, which mmcv asks for, needs libGL. The headless package holds the same module without it.
    pip install --quiet --no-deps --force-reinstall \
        "$(grep '^opencv-python-headless==' requirements/mm.txt)"
    finish libraries "$libraries"
fi

if ! is_done mmcv 'torch mmcv'; then
    say "4/5 Compiling mmcv's operators: 8 to 10 minutes on 2 cores; seconds if pip has kept them from before"
    python -c '
import torch
if torch.cuda.is_available():
    from torch.utils.cpp_extension import CUDA_HOME
    raise SystemExit(3 if CUDA_HOME is None else 0)' || [ $? -ne 3 ] ||
        stop 'There is an NVIDIA GPU, but no CUDA compiler (nvcc) for the operators of mmcv.' \
            'Install the CUDA toolkit (or set CUDA_HOME), or use the CPU only: export CUDA_VISIBLE_DEVICES=' \
            'Then run make again.'
    install mmcv mmcv --no-deps --no-build-isolation
    mmcv_fits || {
        say 'What pip has kept was built for another torch. Compiling anew.'
        pip install --no-deps --no-build-isolation --force-reinstall --no-cache-dir \
            -r requirements/mmcv.txt
    }
    finish mmcv 'torch mmcv'
fi

say '5/5 mmpeft, and a check that everything imports'
PYTHONWARNINGS=ignore pip install --quiet --no-deps --no-build-isolation -e .
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp mmpeft/torchvision_ops.py "$site/_mmpeft_torchvision.py"
echo 'import _mmpeft_torchvision; _mmpeft_torchvision.mend_torchvision()' > "$site/_mmpeft_torchvision.pth"
{
    pip check &&
        python -c 'import mmcv.ops, mmdet.models, mmpretrain.models, mmrotate.models, mmseg.models'
} > "$venv/check.log" 2>&1 || {
    cat "$venv/check.log"
    stop 'The libraries do not work together here; the reason is above.' 'To start from nothing: make clean, then make setup.'
}
touch "$venv/ready"
say "$venv is ready."

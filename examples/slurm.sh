#!/bin/bash
# A corpus prepared by 64 tasks, merged by one, and learnt from by 4 nodes of 8 GPUs:
#
#     bash examples/slurm.sh
#
# Run where Pluri is installed (on all nodes), in a folder that all nodes share. A part that fails is given again by
# itself: sbatch --array=17 ... ; `pluri merge` names the parts that are missing. A training that is killed, or requeued, goes
# on from its last checkpoint.
set -euo pipefail

CORPUS=corpus/*.jsonl.zst TOKENIZER=tokenizer STORE=store CONFIG=pretrain.toml PARTS=64 NODES=4 GPUS=8

parts=$(sbatch --parsable --job-name=prepare --array=1-$PARTS --cpus-per-task=16 --mem=32G --time=12:00:00 --requeue \
    --wrap "pluri prepare $CORPUS --tokenizer $TOKENIZER -o $STORE --workers 16 --part \$SLURM_ARRAY_TASK_ID/$PARTS")

# Memory: about 70 bytes a document.
merged=$(sbatch --parsable --job-name=merge --dependency="afterok:$parts" --cpus-per-task=2 --mem=64G --time=4:00:00 \
    --wrap "pluri merge $STORE")

# One torchrun a node. Stores behind a URL are cached on the node's own disk.
sbatch --job-name=pretrain --dependency="afterok:$merged" --nodes=$NODES --ntasks-per-node=1 --gpus-per-node=$GPUS \
    --cpus-per-task=64 --mem=0 --exclusive --time=48:00:00 --requeue --open-mode=append <<JOB
#!/bin/bash
export PLURI_CACHE=\${SLURM_TMPDIR:-/tmp} PLURI_CACHE_GB=100
head=\$(scontrol show hostnames "\$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes=$NODES --nproc-per-node=$GPUS --max-restarts=3 \
    --rdzv-id="\$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="\$head:29500" \
    -m pluri pretrain $CONFIG --resume
JOB

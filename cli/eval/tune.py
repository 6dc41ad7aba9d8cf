"""``diffsim-eval tune``: fit a coarse encoder to choices of people."""

from pathlib import Path

import typer

from cli import options
from cli.eval import options as opt
from cli.output import print_json
from cli.process import speaker, work_offline
from cli.progress import TaskProgress
from retrieval.settings import EngineSettings

tuning = typer.Typer()
DEVICE = EngineSettings().device


@tuning.command()
def tune(
    triplets: opt.TuneTriplets,
    encoder: opt.Encoder,
    out: opt.TunedFolder,
    epochs: opt.Epochs = 8,
    rank: opt.Rank = 16,
    learning_rate: opt.LearningRate = 3e-4,
    batch_size: opt.TuneBatch = 32,
    seed: opt.TuneSeed = 1234,
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit clip or dinov2 to triplets with LoRA; the folder it writes is an encoder: --encoders clip=FOLDER."""
    work_offline(offline)
    from dataclasses import asdict

    from retrieval.devices.selection import choose_device
    from retrieval.models.registry import load_embedder
    from retrieval.models.vit.pooled import ViTEmbedder
    from retrieval.tuning import TuneSettings, check_tunable, read_tuning_triplets
    from retrieval.tuning import tune as fit

    settings = TuneSettings(
        rank=rank, alpha=2 * rank, learning_rate=learning_rate, batch_size=batch_size, epochs=epochs, seed=seed
    )
    name, _, home = encoder.partition("=")
    check_tunable(name)
    train, held_out = read_tuning_triplets(triplets, seed)
    embedder = load_embedder(name, Path(home) if home else None, choose_device(device), offline)
    assert isinstance(embedder, ViTEmbedder)
    with TaskProgress(quiet) as progress:
        tuned = fit(embedder, train, held_out, out, settings, progress.tell)
    if as_json:
        print_json(asdict(tuned))
    else:
        shares = f"{100 * tuned.before:.1f} % before, {100 * tuned.after:.1f} % after"
        print(f"right on {tuned.count} held-out triplets: {shares}")
    speaker(quiet)(f"{tuned.trained} triplets, {tuned.parameters} numbers; use it with: --encoders {name}={out}")

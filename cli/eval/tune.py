"""``diffsim-eval tune``: fit an encoder to the choices of people."""

from pathlib import Path

import typer

from cli import options
from cli.eval import options as opt
from cli.option_groups import Place, Speech, expand_groups
from cli.terminal.printing import show, show_json
from cli.terminal.process import work_offline
from cli.terminal.progress import ProgressBar

tuning = typer.Typer()


@tuning.command()
@expand_groups
def tune(
    triplets: opt.TuneTriplets,
    encoder: opt.Encoder,
    out: opt.TunedFolder,
    *,
    epochs: opt.Epochs = 8,
    rank: opt.Rank = 16,
    learning_rate: opt.LearningRate = 3e-4,
    batch_size: opt.TuneBatch = 32,
    seed: opt.TuneSeed = 1234,
    where: Place,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Fit clip or dinov2 to triplets with LoRA. Use the new folder as an encoder: --encoders clip=FOLDER."""
    work_offline(where.offline)
    speaker = speech.speaker()
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
    embedder = load_embedder(name, Path(home) if home else None, choose_device(where.device), where.offline)
    assert isinstance(embedder, ViTEmbedder)
    with ProgressBar(speaker) as bar:
        tuned = fit(embedder, train, held_out, out, settings, bar.show)
    if as_json:
        show_json(asdict(tuned))
    else:
        shares = f"{100 * tuned.before:.1f} % before, {100 * tuned.after:.1f} % after"
        show(f"right on {tuned.count} held-out triplets: {shares}")
    speaker.detail(f"learnt from {tuned.trained} triplets; {tuned.parameters} parameters")
    speaker.say(f"use it with: diffsim-index build SOURCE --encoders {name}={out}")

"""What the two examples share: the drawn sample set as torchvision wants it, training with FPTT or BPTT, and the AP."""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import spyolo
from spyolo.boxes import Detections
from spyolo.data import SAMPLE_CLASSES, AugmentSettings, Batch, DetectionDataset, VOCSet, collate, make_sample
from spyolo.engine import in_picture
from spyolo.evaluation import evaluate_detections
from spyolo.learning import BPTT, FPTT, Rule

Targets = list[dict[str, Tensor]]


def options(about: str | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rule", choices=("fptt", "bptt"), default="fptt", help="learning rule [%(default)s]")
    p.add_argument("--timesteps", type=int, default=2, help="T [%(default)s]")
    p.add_argument("--epochs", type=int, default=12, help="[%(default)s]")
    p.add_argument("--pictures", type=int, default=400, help="of the drawn set; every fifth is held out [%(default)s]")
    p.add_argument("--size", type=int, default=128, help="input side in pixels [%(default)s]")
    p.add_argument("--width", type=float, default=0.5, help="of the backbone [%(default)s]")
    p.add_argument("--lr", type=float, default=3e-3, help="Adam's learning rate [%(default)s]")
    p.add_argument("--pretrained", help="weights of the backbone, by name or path [none]")
    p.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    p.add_argument("--data", default="runs/examples-data", help="where the sample set is drawn [%(default)s]")
    return p.parse_args()


def spiking_backbone(args: argparse.Namespace) -> spyolo.features.SpikingBackbone:
    """Maps at strides 8, 16 and 32, means over T steps."""
    size = {} if args.pretrained else {"width": args.width}
    return spyolo.backbone("spyv4_lite", (2, 3, 4), timesteps=args.timesteps, pretrained=args.pretrained, **size)


def sample_sets(args: argparse.Namespace) -> tuple[DetectionDataset, DetectionDataset]:
    """Training pictures, varied anew each epoch, and held-out ones."""
    root = make_sample(args.data, args.pictures, progress=True)
    train, val = (VOCSet(root, f"2007:{part}", SAMPLE_CLASSES) for part in ("train", "val"))
    settings = AugmentSettings(scale=(0.8, 1.25))
    return DetectionDataset(train, args.size, "train", args.seed, settings, cache="ram"), DetectionDataset(val, args.size, "eval")


def as_torchvision(batch: Batch) -> tuple[list[Tensor], Targets]:
    """Pictures in [0, 1] and their objects, without the difficult ones. (FasterRCNN and SSD keep class 0 for the background: add 1.)"""
    targets = [{"boxes": o.boxes[~o.difficult], "labels": o.labels[~o.difficult]} for o in batch.objects]
    return list(batch.images.float().div(255)), targets


def train_batch(detector: nn.Module, rule: Rule, images: list[Tensor], targets: Targets, timesteps: int) -> float:
    """FPTT: one update after each of T steps, in memory of one step. BPTT: one update through all T."""

    def update() -> float:
        loss = sum(detector(images, targets).values())
        rule.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        return loss.item()

    if rule.name == "bptt":
        return update()
    with spyolo.carry_state(detector):  # each call of the detector is now the next step of these pictures
        return [update() for _ in range(timesteps)][-1]


def train(detector: nn.Module, dataset: DetectionDataset, args: argparse.Namespace) -> None:
    optimizer = torch.optim.Adam([w for w in detector.parameters() if w.requires_grad], args.lr)
    rule: Rule = FPTT(optimizer, 0.1, clip=10.0) if args.rule == "fptt" else BPTT(optimizer, clip=10.0)
    order = torch.Generator().manual_seed(args.seed)
    loader = DataLoader(dataset, 8, shuffle=True, drop_last=len(dataset) > 8, collate_fn=collate, generator=order)
    done, total = 0, args.epochs * len(loader)
    detector.train()
    for epoch in range(args.epochs):
        dataset.set_epoch(epoch)
        losses, start = [], time.process_time()
        for batch in loader:
            warm, cosine = min(1.0, (done + 1) / 40), (1 + math.cos(math.pi * done / total)) / 2
            for group in optimizer.param_groups:
                group["lr"] = args.lr * warm * cosine
            losses.append(train_batch(detector, rule, *as_torchvision(batch), args.timesteps))
            done += 1
        print(f"epoch {epoch + 1:2}  loss {sum(losses) / len(losses):.3f}  {time.process_time() - start:.0f} CPU seconds", flush=True)


@torch.inference_mode()
def mean_ap(detector: nn.Module, dataset: DetectionDataset) -> float:
    """mAP@0.5 (VOC10+ area rule) on the held-out pictures."""
    detector.eval()
    found, truth = {}, {}
    for i in range(len(dataset)):
        sample = dataset[i]
        out = detector([sample.image.float().div(255)])[0]
        name, size = sample.image_id, dataset.voc.size(i)
        found[name] = in_picture(Detections(out["boxes"], out["scores"], out["labels"]), sample.letterbox, *size)
        truth[name] = dataset.voc.objects(i)
    return evaluate_detections(truth, found, SAMPLE_CLASSES)["voc10_ap50"]


def run(detector: nn.Module, args: argparse.Namespace) -> None:
    """Train, and say what was learned."""
    train_set, val_set = sample_sets(args)
    start = time.process_time()
    train(detector, train_set, args)
    minutes = (time.process_time() - start) / 60
    what = f"{type(detector).__name__} {args.rule} T={args.timesteps} seed {args.seed}"
    print(f"{what}: mAP@0.5 {mean_ap(detector, val_set):.3f} on {len(val_set)} held-out pictures, {minutes:.1f} CPU minutes of training")

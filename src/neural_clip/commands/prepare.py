"""Options of `neural-clip prepare CORPUS` and of the programs in `dataset_scripts/`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def imagenet_eeg(argv: Sequence[str] | None = None) -> None:
    """Command line of `prepare`."""
    from neural_clip.corpora.imagenet_eeg.build import prepare
    from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR, SPLITS_FILE, VARIANTS

    parser = argparse.ArgumentParser(prog="imagenet_eeg", description="Prepare ImageNetEEG from its released files.")
    parser.add_argument("--raw-dir", type=Path, required=True, help="folder with the .pth files of the release")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="eeg_14_70_std", help="which .pth file to read")
    parser.add_argument("--window", type=int, nargs=2, default=(40, 480), metavar=("FIRST", "END"), help="samples")
    parser.add_argument("--length-range", type=int, nargs=2, metavar=("MIN", "MAX"), help="keep such lengths only")
    parser.add_argument(
        "--standardize", choices=("train", "none", "released"),
        help="train: by training trials; released: by means and stddevs of the raw file; default: train for raw, none "
        "for *_std",
    )  # fmt: skip
    parser.add_argument("--band-pass", type=float, nargs=2, metavar=("LOW", "HIGH"), help="Hz, zero-phase; raw only")
    parser.add_argument("--notch", type=float, metavar="HZ", help="line frequency to take out, zero-phase; raw only")
    parser.add_argument("--subjects", nargs="+", help="such as sub-01 sub-04; default all")
    parser.add_argument(
        "--image-dir", type=Path,
        help=f"ImageNet training images: folder ({IMAGE_DIR}, synset folders or flat), tar or zip; default RAW_DIR",
    )  # fmt: skip
    parser.add_argument("--splits-file", type=Path, help=f"default RAW_DIR/{SPLITS_FILE}")
    parser.add_argument("--ch-names-file", type=Path, help="text file with one channel name a line")
    parser.add_argument(
        "--missing-images", choices=("error", "drop"), default="error",
        help="error: stop and list them in OUTPUT_DIR.missing_images.txt; drop: leave their trials out",
    )  # fmt: skip
    parser.add_argument("--allow-partial", action="store_true", help="accept counts that differ from the release")
    parser.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes that write; default 1")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output folder")
    arguments = vars(parser.parse_args(argv))
    for name in ("window", "length_range", "band_pass"):
        arguments[name] = tuple(arguments[name]) if arguments[name] is not None else None
    print(prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments))


def things_meg(argv: Sequence[str] | None = None) -> None:
    """Prepare THINGS-MEG: `neural-clip prepare things_meg --raw-dir ds004212 --images-dir THINGS --output-dir out`."""
    from neural_clip.corpora.things_meg.build import prepare
    from neural_clip.corpora.things_meg.options import SPLIT_PROTOCOLS, subject_number

    description = "THINGS-MEG (OpenNeuro ds004212), real or simulated, as a folder that load_dataset reads."
    parser = argparse.ArgumentParser(prog="neural-clip prepare things_meg", description=description)
    add = parser.add_argument
    add("--raw-dir", required=True, help="BIDS root of OpenNeuro ds004212, version 2.0.0 or later")
    add("--images-dir", help="extracted THINGS images (default: <raw-dir>/images)")
    add("--output-dir", required=True, help="folder to make")
    add(
        "--route",
        choices=("raw", "derivative"),
        default="raw",
        help="CTF recordings or published epochs (default: raw)",
    )
    add("--preprocessing", choices=("paper", "published"), help="default: paper for raw, published for derivative")
    add("--split", choices=tuple(SPLIT_PROTOCOLS), default="paper", help="default: paper")
    add(
        "--scaling",
        choices=("baseline_zscore", "train_std", "none"),
        default="baseline_zscore",
        help="default: baseline_zscore",
    )
    add("--average-repeats", action="store_true", help="one row per subject and image")
    add(
        "--categories", choices=("27", "53"), default="27", help="table of categories, several a concept (default: 27)"
    )
    add("--categories-file", help="Categories_final_20200131.tsv of ViCCo-Group/THINGS-data (MRI/data), for 53")
    add("--subjects", nargs="+", type=subject_number, help="numbers, such as 1 2 (default: all)")
    add("--sessions", nargs="+", type=int, help="numbers, such as 1 2 (default: all)")
    add("--validation-fraction", type=float, default=0.1, help="share of the training images (default: 0.1)")
    add("--seed", type=int, default=0, help="of the choice of validation images (default: 0)")
    add("--triggers", choices=("compare", "ignore"), default="compare", help="with the events (default: compare)")
    add(
        "--allow-partial",
        action="store_true",
        help="use the runs that are downloaded, and mark the data set as partial",
    )
    add("--num-proc", type=int, default=1, help="processes; each holds one run, 2 GB at real size (default: 1)")
    add("--overwrite", action="store_true", help="replace an older prepared data set")
    arguments = vars(parser.parse_args(argv))
    folder = prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments)
    print(f"THINGS-MEG is in {folder}")


def nsd(argv: Sequence[str] | None = None) -> None:
    """Command line of `prepare`."""
    from neural_clip.corpora.nsd.build import prepare
    from neural_clip.corpora.nsd.options import ANNOTATIONS_DIR, DEFAULT_ROI, N_SESSIONS

    parser = argparse.ArgumentParser(prog="nsd", description="Prepare the Natural Scenes Dataset from a local copy.")
    parser.add_argument("--raw-dir", type=Path, required=True, help="folder with nsddata, nsddata_betas, ...")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--subjects", nargs="+", help="such as sub-01 sub-05; default all with betas")
    parser.add_argument(
        "--n-sessions", type=int, help=f"sessions from the first on; default {N_SESSIONS}, all of a simulated corpus"
    )
    parser.add_argument(
        "--average-repeats", action=argparse.BooleanOptionalAction, default=True, help="one row an image or a trial"
    )
    parser.add_argument(
        "--session-zscore",
        choices=("train_only", "none"),
        default="train_only",
        help="fitted on training trials, or none",
    )
    parser.add_argument(
        "--roi", default=DEFAULT_ROI, help="name of a file in func1pt8mm/roi, or a path with {subject} for subj01, ..."
    )
    parser.add_argument(
        "--roi-values", type=int, nargs="+", help="values that mark wanted voxels; default all above 0"
    )
    parser.add_argument("--validation-fraction", type=float, default=0.1, help="share of the unshared images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of validation images")
    parser.add_argument("--betas-format", choices=("auto", "nifti", "hdf5"), default="auto", help="auto prefers nifti")
    parser.add_argument("--annotations-dir", type=Path, help=f"COCO instances; default RAW_DIR/{ANNOTATIONS_DIR}")
    parser.add_argument(
        "--allow-partial", action="store_true", help="take the sessions that are there; the set is marked as partial"
    )
    parser.add_argument("--num-proc", type=int, default=1, help="parts (subjects, or sessions) written at a time")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output folder")
    arguments = vars(parser.parse_args(argv))
    print(prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments))


def custom(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip prepare custom`."""
    from neural_clip.corpora.custom.build import prepare

    parser = argparse.ArgumentParser(description=custom.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="YAML file that lists recordings, images and splits")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to make")
    parser.add_argument("--raw-dir", type=Path, help="where relative paths begin (default: the manifest's folder)")
    parser.add_argument("--subjects", nargs="+", help="such as sub-01 sub-02 (default: all of the manifest)")
    parser.add_argument("--num-proc", type=int, default=1, help="processes that work at the same time (default: 1)")
    parser.add_argument("--allow-partial", action="store_true", help="accept other counts than 'expect' says")
    parser.add_argument("--overwrite", action="store_true", help="replace an older prepared data set")
    options = vars(parser.parse_args(argv))
    folder = prepare(options.pop("manifest"), options.pop("output_dir"), **options)
    print(f"{folder}: ready for load_dataset")
    return folder

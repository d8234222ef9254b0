"""Simulated twin of THINGS-MEG (OpenNeuro ds004212), written in the formats of the real corpus.

BIDS folders of CTF recordings with events from an optical sensor, the sourcedata tables, the THINGS image tree and the
published derivative epochs. As in the real design every session shows one image of each concept, all test images once,
and catch trials; all subjects see the same images in different order; test images belong to concepts that also have
training images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neural_clip.corpora.things_meg.preprocessing import PUBLISHED, cut_epochs, filter_continuous, filter_taps
from neural_clip.simulation.ctf import CtfChannel, HeadCoils, write_ds
from neural_clip.simulation.images import CONCEPTS, render, sample_specs
from neural_clip.simulation.presets import MegPreset, TwinPreset
from neural_clip.simulation.sensor_layout import BROKEN_SENSOR
from neural_clip.simulation.things_meg_tables import (
    CSV_COLUMNS,
    Stimulus,
    Trial,
    attribute_rows,
    write_category_matrix,
    write_images,
    write_scans,
    write_sidecars,
    write_table,
    write_top_level,
)

CATCH_CODE = 999999  # event code of catch trials in the derivative, as in the published script
TRIGGER, RUN_END = 64, 32  # codes on UPPT001
TRIGGER_LEAD = (8, 20)  # samples from trigger to photons, drawn per trial: the delay that events.tsv corrects
PULSE_SAMPLES = 12  # length of a trigger: 10 ms
RESPONSE_S = 1.0  # simulated responses have died out by then
HEAD_SHIFT_M = 0.0015  # standard deviation of the head position between runs
UNSHOWN_EVERY = 7  # every 7th concept has one image that nobody saw, as 3,659 of the 26,107 THINGS images
CORPUS_INDEX = 1  # of the random streams: 0 EEG, 1 MEG, 2 fMRI
MAX_PART_BYTES = 2_000_000_000  # as MNE splits .fif files
MNE_RESERVE_BYTES = 2**20  # that MNE keeps free in each part
REFERENCES = (
    "BG1", "BG2", "BG3", "BP1", "BP2", "BP3", "BR1", "BR2", "BR3", "G11", "G12", "G13", "G22", "G23", "P11", "P12",
    "P22", "P23", "Q11", "Q12", "Q13", "Q22", "Q23", "R11", "R12", "R13", "R22", "R23",
)  # fmt: skip
REFERENCE_NOISE_T = 1e-12  # rms of a reference sensor in a shielded room


def write(raw_dir: str | Path, preset: TwinPreset, seed: int, *, derivative: bool = True) -> None:
    """Write the simulated corpus.

    Args:
        raw_dir (`str` or `Path`): Folder to make.
        preset (`TwinPreset`): Sizes and dials; the part `meg` is used.
        seed (`int`): Equal seeds give equal bytes.
        derivative (`bool`, *optional*, defaults to `True`): Also write the published epochs (`-epo.fif`). MNE needs
            them whole: 16 GB of memory for preset `full`, 0.1 GB for `demo`.
    """
    from tqdm import tqdm

    from neural_clip.simulation.ceiling import compute
    from neural_clip.simulation.generative import SensorModel, simulated_stamp
    from neural_clip.simulation.latent_space import image_embeds, latents

    raw_dir, meg = Path(raw_dir), preset.meg
    raw_dir.mkdir(parents=True, exist_ok=True)
    stimuli = make_stimuli(meg, np.random.default_rng([seed, 100 + CORPUS_INDEX]))
    pictures = [render(stimulus.spec, meg.image_size) for stimulus in stimuli]
    codes = latents(image_embeds(np.stack(pictures)))
    codes = np.concatenate([codes, np.zeros_like(codes[:1])])  # row -1: catch trials
    model = SensorModel(meg, seed)
    write_top_level(raw_dir, meg)
    write_images(raw_dir / "images", stimuli, pictures)
    write_category_matrix(raw_dir / "sourcedata" / "category_mat_manual.tsv", stimuli)
    with tqdm(total=meg.n_subjects * meg.n_sessions * meg.n_runs, desc="simulated THINGS-MEG", unit="run") as bar:
        for index in range(meg.n_subjects):
            _Subject(raw_dir, meg, seed, index, model, stimuli, codes).write(derivative, bar)
    test = [number for number, stimulus in enumerate(stimuli) if stimulus.kind == "test"]
    stamp = simulated_stamp(preset, "meg", seed, compute("meg", model, meg, codes[test], seed))
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def make_stimuli(meg: MegPreset, rng: np.random.Generator) -> list[Stimulus]:
    """All images in THINGS order: by concept, within a concept training images, test image, images nobody saw."""
    concepts = sorted(CONCEPTS[: meg.n_concepts])
    tested = set(rng.permutation(len(concepts))[: meg.n_test_images].tolist())
    letters = {"exp": "b", "test": "s", "unshown": "n"}  # real names end like 01b, 13s, 14n
    stimuli: list[Stimulus] = []
    for number, concept in enumerate(concepts):
        kinds = ["exp"] * meg.n_sessions + ["test"] * (number in tested) + ["unshown"] * (number % UNSHOWN_EVERY == 0)
        specs = sample_specs(len(kinds), rng, concept=concept)
        for exemplar, (kind, spec) in enumerate(zip(kinds, specs, strict=True), 1):
            file = f"{concept}_{exemplar:02d}{letters[kind]}.jpg"
            stimuli.append(Stimulus(spec, file, len(stimuli) + 1, number + 1, exemplar, kind))
    return stimuli


def make_trials(meg: MegPreset, stimuli: list[Stimulus], rng: np.random.Generator) -> list[Trial]:
    """Trials of one subject in order: sessions of mixed runs with equal shares of test and catch trials."""
    exp = np.array([n for n, s in enumerate(stimuli) if s.kind == "exp"]).reshape(meg.n_concepts, meg.n_sessions)
    exp = rng.permuted(exp, axis=1)  # column = session: one new image of every concept each
    test = np.array([n for n, s in enumerate(stimuli) if s.kind == "test"])
    trials = []
    for session in range(1, meg.n_sessions + 1):
        groups = [("exp", exp[:, session - 1]), ("test", test), ("catch", np.full(meg.n_catch_per_session, -1))]
        shares = [(kind, np.array_split(rng.permutation(numbers), meg.n_runs)) for kind, numbers in groups]
        for run in range(1, meg.n_runs + 1):
            items = [(int(number), kind) for kind, parts in shares for number in parts[run - 1]]
            gaps = rng.integers(round(meg.soa_s[0] * meg.sfreq), round(meg.soa_s[1] * meg.sfreq) + 1, len(items))
            onsets = round(meg.lead_s * meg.sfreq) + np.cumsum(gaps) - gaps[0]
            for item, onset in zip(rng.permutation(len(items)), onsets, strict=True):
                number, kind = items[item]
                trials.append(Trial(number, kind, session, run, int(onset)))
    return trials


class _Subject:
    """One simulated subject: trials, sensors and random streams."""

    def __init__(
        self, raw_dir: Path, meg: MegPreset, seed: int, index: int, model, stimuli: list[Stimulus], codes: np.ndarray
    ):
        self.raw_dir, self.meg, self.seed, self.index = raw_dir, meg, seed, index
        self.model, self.stimuli, self.codes = model, stimuli, codes
        self.number = meg.subjects[index]
        self.trials = make_trials(meg, stimuli, np.random.default_rng([seed, CORPUS_INDEX, index]))
        self.channels = _channels(model, meg)

    def write(self, derivative: bool, progress) -> None:
        """Recordings, sidecars, table and derivative."""
        taps = filter_taps(PUBLISHED, self.meg.sfreq)
        keep = [row for row, name in enumerate(self.model.ch_names) if name != BROKEN_SENSOR]
        shape = (len(self.trials) if derivative else 0, len(keep), PUBLISHED.n_times)
        epochs, done, path = np.empty(shape), 0, Path()  # float64, as MNE holds and would copy it
        for session, run, trials in self._runs():
            rng = np.random.default_rng([self.seed, CORPUS_INDEX, self.index, session, run])
            brain = self._brain(trials, rng)
            path = self._write_run(session, run, trials, brain, rng)
            if derivative:
                onsets = np.array([trial.sample for trial in trials])
                filtered = filter_continuous(brain[keep], taps)
                part = cut_epochs(filtered, onsets, PUBLISHED, self.meg.sfreq, "baseline_zscore")
                epochs[done : done + len(part)] = part
                done += len(part)
            progress.update()
        write_scans(self.raw_dir, self.number, self.meg)
        rng = np.random.default_rng([self.seed, CORPUS_INDEX, self.index, 0])
        table = attribute_rows(self.meg, self.trials, self.stimuli, rng)
        write_table(self.raw_dir / "sourcedata" / f"sample_attributes_P{self.number}.csv", table)
        if derivative:
            self._write_derivative(epochs, path, table)

    def _runs(self) -> Iterator[tuple[int, int, list[Trial]]]:
        """Session, run and trials, in order."""
        for session in range(1, self.meg.n_sessions + 1):
            for run in range(1, self.meg.n_runs + 1):
                yield session, run, [trial for trial in self.trials if (trial.session, trial.run) == (session, run)]

    def _brain(self, trials: list[Trial], rng: np.random.Generator) -> np.ndarray:
        """Noise of a whole run plus the response to every image, `(n_chans, n_times)` float32 in T."""
        meg = self.meg
        data = self.model.noise(self.index, trials[-1].sample + round(meg.lead_s * meg.sfreq), rng)
        reach = round(min(RESPONSE_S, meg.lead_s) * meg.sfreq)
        codes = self.codes[[trial.stimulus for trial in trials]]
        signal, _ = self.model.signal(self.index, codes, rng, tmin=0.0, n_times=reach)
        for trial, response in zip(trials, signal, strict=True):
            data[:, trial.sample : trial.sample + reach] += response
        return data

    def _write_run(
        self, session: int, run: int, trials: list[Trial], brain: np.ndarray, rng: np.random.Generator
    ) -> Path:
        """Recording with its sidecars."""
        folder = self.raw_dir / f"sub-BIGMEG{self.number}" / f"ses-{session:02d}" / "meg"
        stem = f"sub-BIGMEG{self.number}_ses-{session:02d}_task-main_run-{run:02d}"
        n_times = brain.shape[1]
        before = REFERENCE_NOISE_T * rng.standard_normal((1 + self.meg.n_ref_chans, n_times), dtype=np.float32)
        before[0] = np.arange(1, n_times + 1) / self.meg.sfreq  # s; the clock is never 0 while data are taken
        data = np.concatenate([before, brain, self._timing(trials, n_times, rng)])
        shift = rng.normal(0, HEAD_SHIFT_M, 3)
        path = write_ds(
            folder / f"{stem}_meg.ds", data, self.channels, self.meg.sfreq, trial_samples=round(self.meg.sfreq),
            coils=HeadCoils(shift=(shift[0], shift[1], shift[2])), subject=f"BIGMEG{self.number}",
        )  # fmt: skip
        write_sidecars(folder, stem, self.meg, trials, self.channels, self.stimuli, n_times)
        return path

    def _timing(self, trials: list[Trial], n_times: int, rng: np.random.Generator) -> np.ndarray:
        """Photodiode in V and trigger codes, `(2, n_times)` float32."""
        rows = np.zeros((2, n_times), dtype=np.float32)
        rows[0] = 0.01 * rng.standard_normal(n_times, dtype=np.float32)  # V
        leads = rng.integers(TRIGGER_LEAD[0], TRIGGER_LEAD[1] + 1, len(trials))
        for trial, lead in zip(trials, leads, strict=True):
            rows[0, trial.sample : trial.sample + round(self.meg.image_duration_s * self.meg.sfreq)] += 1.0  # V
            rows[1, trial.sample - lead : trial.sample - lead + PULSE_SAMPLES] = TRIGGER
        rows[1, -2 * PULSE_SAMPLES : -PULSE_SAMPLES] = RUN_END
        return rows

    def _write_derivative(self, epochs: np.ndarray, recording: Path, table: list[dict[str, object]]) -> None:
        """`preprocessed_P{k}-epo.fif` in two or more parts, with the event numbers and attributes of each trial."""
        import mne
        import pandas as pd

        info = mne.io.read_raw_ctf(recording, verbose="ERROR").info
        names = [name for name in self.model.ch_names if name != BROKEN_SENSOR]
        with mne.use_log_level("ERROR"):  # it tells that compensators are dropped with the reference channels
            info = mne.pick_info(info, [info["ch_names"].index(name) for name in names])
        with info._unlock():
            info["sfreq"], info["highpass"], info["lowpass"] = PUBLISHED.sfreq, PUBLISHED.high_pass, PUBLISHED.low_pass
        codes = [CATCH_CODE if trial.stimulus < 0 else self.stimuli[trial.stimulus].value for trial in self.trials]
        # Runs were concatenated, so samples only have to grow from trial to trial.
        samples = PUBLISHED.n_times * np.arange(1, len(codes) + 1)
        events = np.stack([samples, np.zeros(len(codes), int), codes], axis=1)
        metadata = pd.DataFrame(table, columns=CSV_COLUMNS)
        options = {"tmin": PUBLISHED.tmin, "metadata": metadata, "proj": False, "verbose": "ERROR"}
        result = mne.EpochsArray(epochs, info, events, **options)
        folder = self.raw_dir / "derivatives" / "preprocessed"
        folder.mkdir(parents=True, exist_ok=True)
        # stored in single precision, half of what is in memory
        part_bytes = min(
            MAX_PART_BYTES, int(0.6 * epochs.nbytes / 2) + MNE_RESERVE_BYTES
        )  # small sets have 2 parts too
        result.save(folder / f"preprocessed_P{self.number}-epo.fif", split_size=part_bytes, verbose="ERROR")
        for path in sorted(folder.glob(f"preprocessed_P{self.number}-epo*.fif")):
            _blank_file_ids(path)


def _channels(model, meg: MegPreset) -> list[CtfChannel]:
    """Clock, reference sensors, MEG sensors, photodiode, trigger: the order of the real channels.tsv."""
    n_mag = min(9, -(-meg.n_ref_chans // 2))  # fewer references than the real 9 + 19 are half of each kind
    names = [*REFERENCES[:n_mag], *REFERENCES[9 : 9 + meg.n_ref_chans - n_mag]]
    channels = [CtfChannel("SCLK01-177", "clock")]
    for number, name in enumerate(names):
        angle = 2 * np.pi * number / len(names)
        place = (0.06 * np.cos(angle), 0.06 * np.sin(angle), 0.30)  # m: a ring above the helmet
        kind = "ref_mag" if name.startswith("B") else "ref_grad"
        channels.append(CtfChannel(f"{name}-1609", kind, place, (0.0, 0.0, 1.0)))
    for name, position in zip(model.ch_names, model.positions, strict=True):
        normal = position / np.linalg.norm(position)
        channels.append(CtfChannel(name, "meg", tuple(position.tolist()), tuple(normal.tolist())))
    return [*channels, CtfChannel("UADC016-2104", "adc"), CtfChannel("UPPT001", "stim")]


def _blank_file_ids(path: Path) -> None:
    """Blank the machine and time stamps in the tags of a `.fif` file, so that equal data are equal bytes."""
    id_struct = 31  # tag type FIFFT_ID_STRUCT: version, two machine numbers, seconds, microseconds
    content = bytearray(path.read_bytes())
    position = 0
    while position + 16 <= len(content):
        _, tag_type, size, following = (int(number) for number in np.frombuffer(content, ">i4", 4, position))
        if tag_type == id_struct:
            content[position + 20 : position + 16 + size] = bytes(size - 4)  # the version stays
        if following == -1:
            break
        position = following if following > 0 else position + 16 + size
    path.write_bytes(content)

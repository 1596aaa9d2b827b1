from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, label

from data_scripts import calibrate_synth3d, make_synth3d
from lib.errors import InputError, run_command_line
from lib.runtime import seeded_generator
from lib.synth3d import CATEGORIES, DEFECTS, MANIFEST_NAME, Counts, render_sample, sample_keys, write_category, writer
from lib.synth3d.canvas import canvas_of
from lib.synth3d.defects import FLOOR_MM, HEIGHT_THRESHOLD_MM, spoil
from lib.synth3d.families import FAMILIES
from lib.synth3d.layers import Layers, sample_parts, swap_kinds
from lib.synth3d.sensor import camera_for, sample_support, scan, true_depth_mm
from lib.synth3d.sweet import KIND_COLORS, inlay_centers, inlay_color

SMALL = 97
FEW = Counts(train=2, validation=1, test_good=1, test_per_defect=1)


def _layers(category: str, *words: int | str, size: int = 300):
    family = FAMILIES[category]
    return family.build(family.sample(seeded_generator(category, *words)), canvas_of(size))


def _spoiled(category: str, defect: str, index: int, size: int = 150):
    good = _layers(category, index, size=size)
    bad, mask = spoil(good, defect, canvas_of(size), FAMILIES[category], seeded_generator(category, defect, index))
    return good, bad, mask


# ---------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("category", CATEGORIES)
def test_sample_has_documented_shapes_dtypes_and_units(category):
    sample = render_sample(category, "good", seeded_generator(1, category))
    assert sample.rgb.shape == (300, 300, 3) and sample.rgb.dtype == np.uint8
    assert sample.cloud.shape == (300, 300, 3) and sample.cloud.dtype == np.float32
    assert sample.gt_mask.shape == (300, 300) and sample.gt_mask.dtype == bool
    assert not sample.gt_mask.any()
    depth = sample.cloud[..., 2]
    valid = depth > 0
    assert (sample.cloud[~valid] == 0).all() and np.isfinite(sample.cloud).all()
    assert depth[valid].min() > 0.35 and depth[valid].max() < 0.43  # metres, camera about 0.4 m above the board
    pitch = np.diff(sample.cloud[0, :, 0][valid[0]]).min()
    assert 0.00034 < pitch < 0.00041


def test_cloud_points_lie_on_their_pinhole_rays():
    cloud = render_sample("sweet", "good", seeded_generator(2), SMALL).cloud.astype(np.float64)
    camera = camera_for(canvas_of(SMALL))
    rows, columns = np.nonzero(cloud[..., 2])
    x, y, z = cloud[rows, columns].T
    assert x == pytest.approx((columns - camera.cx) * z / camera.fx, abs=1e-7)
    assert y == pytest.approx((rows - camera.cy) * z / camera.fy, abs=1e-7)


def test_true_depth_puts_points_at_their_height_over_the_plane():
    support = sample_support(seeded_generator(3))
    camera = camera_for(canvas_of(SMALL))
    height = seeded_generator(4).uniform(0, 20, (SMALL, SMALL))
    depth = true_depth_mm(height, camera, support)
    columns, rows = np.meshgrid(np.arange(SMALL), np.arange(SMALL))
    points = np.stack([(columns - camera.cx) / camera.fx * depth, (rows - camera.cy) / camera.fy * depth, depth], -1)
    assert support.distance_mm - points @ support.normal == pytest.approx(height, abs=1e-9)


@pytest.mark.parametrize("defect", ["good", *DEFECTS])
def test_equal_generators_give_equal_samples(defect):
    first, again, other = (render_sample("ring", defect, seeded_generator(seed), SMALL) for seed in (5, 5, 6))
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in ("rgb", "cloud", "gt_mask"))
    assert not np.array_equal(first.rgb, other.rgb) and not np.array_equal(first.cloud, other.cloud)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_works_at_a_small_size_and_has_a_mask(category, defect):
    assert render_sample(category, defect, seeded_generator(7, category, defect), SMALL).gt_mask.sum() >= 5


@pytest.mark.parametrize(
    ("category", "defect", "size"), [("bagel", "good", 97), ("ring", "crack", 97), ("ring", "cut", 9)]
)
def test_unknown_names_and_tiny_sizes_are_refused(category, defect, size):
    with pytest.raises(InputError, match="use"):
        render_sample(category, defect, seeded_generator(8), size)


# ------------------------------------------------------------------------------- what preparation relies on


@pytest.mark.parametrize("category", CATEGORIES)
def test_object_is_clear_of_the_border_in_one_piece_and_high(category):
    for index in range(12):
        layers = _layers(category, index)
        rows, columns = np.nonzero(layers.inside)
        assert min(rows.min(), columns.min(), 299 - rows.max(), 299 - columns.max()) >= 14
        pieces = np.bincount(label(layers.inside, np.ones((3, 3)))[0].ravel())[1:]
        assert pieces.max() > 0.999 * pieces.sum()  # the tip of a frayed fibre may stand alone
        assert (layers.height[layers.inside] > 6).mean() > 0.95 and layers.height.max() < 26
        assert not layers.height[~binary_dilation(layers.inside)].any()
        assert 0.1 < layers.inside.mean() < 0.5


@pytest.mark.parametrize("category", CATEGORIES)
def test_border_is_plane_and_missing_returns_are_rare_inside(category):
    sample = render_sample(category, "good", seeded_generator(9, category))
    valid = sample.cloud[..., 2] > 0
    height = calibrate_synth3d.height_over_plane(sample.cloud)
    border = np.ones_like(valid)
    border[10:-10, 10:-10] = False
    assert np.abs(height[border]).max() < 0.6 and valid[border].mean() > 0.99
    found = (height > 5) & valid
    assert valid[binary_erosion(height > 5, iterations=3)].mean() > 0.985
    assert not valid.all()
    pieces = np.bincount(label(found, np.ones((3, 3)))[0].ravel())[1:]
    assert pieces.max() > 0.99 * found.sum()


def test_depth_comes_in_steps_of_a_tenth_of_a_millimetre():
    depth = render_sample("biscuit", "good", seeded_generator(10), SMALL).cloud[..., 2].astype(np.float64) * 1e4
    assert depth == pytest.approx(np.rint(depth), abs=1e-3)


def test_depth_noise_grows_with_slope():
    canvas, errors = canvas_of(150), []
    for slope in (0.0, 2.0):
        height = (canvas.x_mm + 60) * np.float32(slope)
        layers = Layers(height, np.zeros((150, 150, 3), np.float32), 0 * height, 0 * height)
        stream = seeded_generator(16)
        support = sample_support(stream)
        cloud = scan(layers, canvas, support, stream)
        exact = true_depth_mm(height, camera_for(canvas), support)
        errors.append((cloud[..., 2] * 1000 - exact)[cloud[..., 2] > 0].std())
    assert 0.04 < errors[0] < 0.12 and errors[1] > 1.5 * errors[0]


# ---------------------------------------------------------------------------------------------- defects


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("defect", [name for name in DEFECTS if name != "swap"])
def test_nothing_changes_outside_the_mask_and_it_lies_on_the_object(category, defect):
    for index in range(3):
        good, bad, mask = _spoiled(category, defect, index)
        assert mask.any() and not (mask & ~good.inside).any()
        assert np.array_equal(good.height[~mask], bad.height[~mask])
        assert np.array_equal(good.albedo[~mask], bad.albedo[~mask])
        assert np.array_equal(good.gloss[~mask], bad.gloss[~mask])
        lowered = bad.height < good.height
        assert (bad.height[lowered] >= FLOOR_MM).all()  # pits end above the cut of preparation
        assert lowered.any() or defect not in ("hole", "cut")


@pytest.mark.parametrize("category", CATEGORIES)
def test_defects_change_height_and_color_as_named(category):
    changes = {}
    for defect in set(DEFECTS) - {"swap"}:
        good, bad, mask = _spoiled(category, defect, 1)
        changes[defect] = (bad.height - good.height)[mask], np.abs(bad.albedo - good.albedo)[mask].max()
    assert changes["hole"][0].min() < -1.2 and changes["hole"][1] > 0.01
    assert changes["cut"][0].min() < -0.8 and changes["cut"][1] > 0.01
    assert changes["bump"][0].max() > 1.2 and changes["bump"][0].min() > 0 and changes["bump"][1] == 0
    assert changes["contamination"][0].max() > 0.3 and changes["contamination"][1] > 0.01
    assert not changes["stain"][0].any() and changes["stain"][1] > 0.01


def test_stain_leaves_the_cloud_of_its_good_twin_untouched():
    good, bad = (render_sample("cord", defect, seeded_generator(11), SMALL) for defect in ("good", "stain"))
    assert np.array_equal(good.cloud, bad.cloud)
    assert bad.gt_mask.any() and not np.array_equal(good.rgb, bad.rgb)


@pytest.mark.parametrize("category", CATEGORIES)
def test_swap_shows_one_nominal_object_and_measures_another_of_the_same_outline(category):
    size, family = 150, FAMILIES[category]
    good, swap = (render_sample(category, defect, seeded_generator(12, category), size) for defect in ("good", "swap"))
    assert np.array_equal(good.rgb, swap.rgb)  # the photograph is the good twin's, shadows and all
    latent_stream, defect_stream = seeded_generator(12, category).spawn(2)
    latent = family.sample(latent_stream)
    other = replace(latent, parts=swap_kinds(defect_stream, latent.parts, family.num_kinds))
    seen, measured = (family.build(each, canvas_of(size)) for each in (latent, other))
    assert np.array_equal(seen.coverage, measured.coverage)
    differs = np.abs(seen.height - measured.height) > HEIGHT_THRESHOLD_MM
    assert np.array_equal(swap.gt_mask, differs & seen.inside) and swap.gt_mask.any()
    untouched = ~binary_dilation(np.abs(seen.height - measured.height) > 0, iterations=2)
    assert (good.cloud == swap.cloud)[untouched].mean() > 0.999


def test_swap_changes_one_to_three_kinds_and_keeps_them_uniform():
    counts, changed = np.zeros(3), set()
    for index in range(400):
        generator = seeded_generator(13, index)
        parts = sample_parts(generator, 9, 3)
        other = swap_kinds(generator, parts, 3)
        changed.add(int((parts.kinds != other.kinds).sum()))
        counts += np.bincount(other.kinds, minlength=3)
        assert np.array_equal(parts.tones, other.tones) and np.array_equal(parts.reliefs, other.reliefs)
    assert changed == {1, 2, 3}
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_sweet_has_two_colors_for_each_shape_and_one_shape_for_each_color():
    assert len(KIND_COLORS) == 3 and len({code for codes in KIND_COLORS for code in codes}) == 6
    family, canvas = FAMILIES["sweet"], canvas_of(300)
    latent = family.sample(seeded_generator(14))
    parts = latent.parts
    other = replace(latent, parts=replace(parts, shades=1 - parts.shades))
    first, second = family.build(latent, canvas), family.build(other, canvas)
    assert np.array_equal(first.height, second.height)
    for index, center in enumerate(inlay_centers(latent)):
        column, row = np.rint(center / canvas.pitch_mm + 149.5).astype(int)
        for layers, shade in ((first, parts.shades[index]), (second, 1 - parts.shades[index])):
            expected = inlay_color(int(parts.kinds[index]), int(shade)) * parts.tones[index]
            assert layers.albedo[row, column] == pytest.approx(expected, rel=1e-4)


# ---------------------------------------------------------------------------------------------- writing


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synth3d")
    assert write_category(root, "sweet", 21, FEW, progress=False) == root / "sweet" / MANIFEST_NAME
    return root


def test_folder_has_the_mvtec_layout(written):
    folder = written / "sweet"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {MANIFEST_NAME, "calibration/camera_parameters.json"}
    for split, defect, index in sample_keys(FEW):
        stem = f"{split}/{defect}"
        expected |= {f"{stem}/rgb/{index:03d}.png", f"{stem}/xyz/{index:03d}.tiff"}
        expected |= {f"{stem}/gt/{index:03d}.png"} if split == "test" else set()
    assert files == expected
    camera = json.loads((folder / "calibration" / "camera_parameters.json").read_text())
    assert set(camera) == {"fx", "fy", "cx", "cy", "width", "height", "pose"}


def test_files_hold_the_rendered_samples(written):
    expected = render_sample("sweet", "hole", seeded_generator(21, "sweet", "test", "hole", 0))
    folder = written / "sweet" / "test" / "hole"
    cloud = tifffile.imread(folder / "xyz" / "000.tiff")
    assert cloud.dtype == np.float32 and np.array_equal(cloud, expected.cloud)
    assert np.array_equal(np.asarray(Image.open(folder / "rgb" / "000.png")), expected.rgb)
    assert np.array_equal(np.asarray(Image.open(folder / "gt" / "000.png")) > 0, expected.gt_mask)
    assert not np.asarray(Image.open(written / "sweet" / "test" / "good" / "gt" / "000.png")).any()


def test_one_seed_gives_identical_bytes_and_other_counts_keep_the_samples(written, tmp_path):
    again = json.loads(write_category(tmp_path / "again", "sweet", 21, FEW, progress=False).read_text())
    assert again == json.loads((written / "sweet" / MANIFEST_NAME).read_text())
    fewer = replace(FEW, train=1, test_per_defect=0)
    write_category(tmp_path / "fewer", "sweet", 21, fewer, progress=False)
    for part in ("rgb/000.png", "xyz/000.tiff"):
        path = Path("sweet/train/good") / part
        assert (tmp_path / "fewer" / path).read_bytes() == (written / path).read_bytes()


def test_second_run_does_nothing_and_another_seed_replaces(tmp_path):
    none = Counts(1, 0, 0, 0)
    manifest = write_category(tmp_path, "ring", 1, none, progress=False)
    first = manifest.stat().st_mtime_ns, manifest.read_text()
    write_category(tmp_path, "ring", 1, none, progress=False)
    assert (manifest.stat().st_mtime_ns, manifest.read_text()) == first
    write_category(tmp_path, "ring", 2, none, progress=False)
    changed = json.loads(manifest.read_text())
    assert changed["seed"] == 2 and changed["sha256"] != json.loads(first[1])["sha256"]
    assert changed["counts"] == asdict(none)
    assert {path.name for path in tmp_path.iterdir()} <= {"ring", ".ring.lock"}


def test_folder_without_manifest_is_written_anew(tmp_path):
    (tmp_path / "ring" / "train").mkdir(parents=True)
    (tmp_path / "ring" / "train" / "half.png").write_bytes(b"")
    for kind in ("new", "old"):  # of a run that was killed
        (tmp_path / f".ring.{kind}.part" / "train").mkdir(parents=True)
    manifest = write_category(tmp_path, "ring", 1, Counts(1, 0, 0, 0), progress=False)
    assert manifest.is_file() and not (tmp_path / "ring" / "train" / "half.png").exists()
    assert not list(tmp_path.glob("*.part"))


def test_two_at_once_write_it_once(tmp_path, monkeypatch):
    real, written = writer._write_samples, []

    def slow(*given):
        written.append(given)
        time.sleep(0.2)
        real(*given)

    monkeypatch.setattr(writer, "_write_samples", slow)
    with ThreadPoolExecutor(2) as pool:
        manifests = list(pool.map(lambda _: write_category(tmp_path, "ring", 1, Counts(1, 0, 0, 0), False), range(2)))
    assert len(written) == 1 and manifests == [tmp_path / "ring" / MANIFEST_NAME] * 2


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.tifffile, "imwrite", fail)
    with pytest.raises(KeyboardInterrupt):
        write_category(tmp_path, "ring", 1, FEW, progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {".ring.lock"}


@pytest.mark.parametrize(("category", "seed"), [("bagel", 1), ("ring", -1)])
def test_writer_refuses_bad_arguments(tmp_path, category, seed):
    with pytest.raises(InputError, match=r"use|needs"):
        write_category(tmp_path, category, seed, FEW, progress=False)


# ---------------------------------------------------------------------------------------------- scripts


def test_command_line_names_the_unknown_category_in_one_line(tmp_path, capsys):
    given = ["--root", str(tmp_path), "--seed", "1", "--category", "bagel", "--workers", "1"]
    assert run_command_line(lambda: make_synth3d.main(given)) == 2
    message = capsys.readouterr().err
    assert "bagel" in message and message.count("\n") == 1


def test_calibration_refuses_seeds_kept_for_reported_data(tmp_path):
    with pytest.raises(InputError, match=r"--seeds \[1000\]: others are kept for reported data; use 0 to 999$"):
        calibrate_synth3d.main(["--seeds", "1000", "--output", str(tmp_path / "x.json")])
    assert not (tmp_path / "x.json").exists()


def test_calibration_nearest_distance_against_all_pairs():
    generator = seeded_generator(15)
    queries, bank = generator.normal(size=(41, 7)).astype(np.float32), generator.normal(size=(23, 7)).astype(np.float32)
    slow = [min(np.linalg.norm(query - row) for row in bank) for query in queries]
    assert calibrate_synth3d._nearest_distance(queries, bank, chunk=8) == pytest.approx(slow, abs=1e-4)

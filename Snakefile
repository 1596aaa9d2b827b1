# The whole study as a graph: data -> features -> experiments -> notebooks -> book.
# `make book` runs it; so does `snakemake --cores N --config profile=demo`, here or, with an executor plugin, on a cluster.
# Jobs depend on exactly the source files their script imports (lib.sources): a changed figure reruns notebooks,
# not experiments. Each job's output lands in its log under runs/<profile>/logs.
import hashlib
import os
import re
import sys
from pathlib import Path

from lib.head_choice import head_modules
from lib.profiles import load_profile
from lib.sources import source_closure

ROOT = Path(workflow.basedir)
PROFILE = load_profile(config.get("profile", "demo"))
WORK = f"runs/{PROFILE.name}"
LOGS = f"{WORK}/logs"
CFM = PROFILE.method("cfm")
BASIC = [spec for spec in PROFILE.methods.values() if not spec.ablation]
# what data and features depend on, and not, say, the list of chapters
FEATURE_SETTINGS = [PROFILE.dataset, PROFILE.data_root, PROFILE.data_seed, PROFILE.preparation, PROFILE.device]

# What a job asks of a cluster; profiles/slurm can ask otherwise. On one machine `gpu` keeps jobs from outnumbering GPUs.
GPU = int(PROFILE.device == "cuda")
MEMORY_MB = 6000 if PROFILE.dataset == "synth3d" else 32000
MINUTES = 60 if PROFILE.dataset == "synth3d" else 1440

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["STUDY_PROFILE"] = PROFILE.name
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(PROFILE.threads)


def sources(*paths):
    """Project files that the given scripts or notebooks need."""
    return [str(path.relative_to(ROOT)) for path in source_closure([ROOT / path for path in paths], ROOT)]


def head_files(spec):
    """Files of the heads that a method's settings name; they are imported by name, which no import statement shows."""
    return [module.replace(".", "/") + ".py" for module in head_modules(spec.config)]


def records(spec, category, seed):
    """Records that one experiment writes."""
    return [f"{WORK}/records/{spec.name}/{category}/{variant}-s{seed}.json" for variant in spec.variants]


def features(extractor, category):
    """File that says that a category's features are complete (lib.feature_store.manifest_path)."""
    return f"{WORK}/features/{extractor.slug}/{category}.json"


def book_files(*patterns):
    """Hand-written files of the book that match the patterns."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / "book").glob(pattern))


def results_digest(*folders):
    """SHA-256 over the committed results in folders of results/.

    As inputs these files would be looked up, all of them, each time that Snakemake looks for a job.
    """
    digest = hashlib.sha256()
    found = (path for folder in folders for path in (ROOT / "results" / folder).rglob("*.json"))
    for path in sorted(path for path in found if not path.name.startswith(".")):  # a dot: being written
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


BASIC_RECORDS = [
    path for spec in BASIC for category in spec.categories for seed in spec.seeds for path in records(spec, category, seed)
]
FEATURES = [features(PROFILE.extractor, category) for category in PROFILE.categories]
EMBEDDED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "lib/extractors/embedded").glob("*.*"))
# The demo's book lies in book/ and has every chapter; other profiles have editions of their own, beside it.
IS_DEMO = PROFILE.name == "demo"
BOOK = "book" if IS_DEMO else f"{WORK}/book"
SITE = "_build/html" if IS_DEMO else f"_build/{PROFILE.name}/html"
ASSEMBLE = "" if IS_DEMO else f"python data_scripts/assemble_book.py --profile {PROFILE.name} --target {BOOK} && "
EXAMPLE = "" if IS_DEMO else f" --example category {PROFILE.categories[0]}"
CURATED = results_digest(PROFILE.name, "bench")
OVERVIEW = "book/chapters/figures/overview.png"
CHAPTERS = expand(f"{BOOK}/chapters/{{stem}}.ipynb", stem=PROFILE.chapters)


wildcard_constraints:
    category="|".join(PROFILE.categories),
    extractor="|".join(map(re.escape, PROFILE.extractors)),
    seed=r"\d+",


localrules: study, book


# names the steps in between too, so that a deleted record is computed again
rule study:
    default_target: True
    input: f"{SITE}/index.html", CHAPTERS, BASIC_RECORDS, FEATURES,


rule book:
    message: "book"
    input:
        chapters=CHAPTERS,
        pages=book_files("*.md", "*.bib", "_toc.yml", "_ext/*.py", "_static/**/*.*"),
        config="_config.yml",
        overview=OVERVIEW if IS_DEMO else [],
        check=sources("data_scripts/check_site.py", "data_scripts/assemble_book.py"),
    output: f"{SITE}/index.html",
    log: f"{LOGS}/book.log",
    params:
        scratch=f"{WORK}/site",
        site=SITE,
        source=BOOK,
        assemble=ASSEMBLE,
    shell:
        "(rm -rf {params.scratch} && {params.assemble}"
        "jupyter-book build {params.source} --config _config.yml --path-output {params.scratch} -W -n --keep-going"
        " && python data_scripts/check_site.py {params.scratch}/_build/html"
        " && rm -rf {params.site} && mkdir -p {params.site} && rmdir {params.site}"
        " && mv {params.scratch}/_build/html {params.site}) > {log} 2>&1"


if PROFILE.dataset == "synth3d":

    rule data:
        message: "data {wildcards.category}"
        input: sources("data_scripts/make_synth3d.py"),
        output: f"{PROFILE.data_root}/{{category}}/manifest.json",
        log: f"{LOGS}/data-{{category}}.log",
        params:
            root=PROFILE.data_root,
            seed=PROFILE.data_seed,
        threads: PROFILE.threads
        resources: mem_mb=2000, runtime=30,
        priority: 3
        shell:
            "python data_scripts/make_synth3d.py --root {params.root} --seed {params.seed}"
            " --category {wildcards.category} > {log} 2>&1"


rule features:
    message: "features {wildcards.category} {wildcards.extractor}"
    input:
        data=f"{PROFILE.data_root}/{{category}}/manifest.json" if PROFILE.dataset == "synth3d" else [],
        weights=lambda wildcards: EMBEDDED if "embedded" in wildcards.extractor else [],
        code=sources("data_scripts/extract_features.py"),
    output: f"{WORK}/features/{{extractor}}/{{category}}.json",
    log: f"{LOGS}/features-{{extractor}}-{{category}}.log",
    params:
        settings=lambda wildcards: str([*FEATURE_SETTINGS, PROFILE.extractors[wildcards.extractor]]),
    threads: PROFILE.threads
    resources: gpu=GPU, mem_mb=MEMORY_MB, runtime=MINUTES,
    priority: 2  # the rest waits for features
    shell:
        "python data_scripts/extract_features.py --profile {PROFILE.name} --category {wildcards.category}"
        " --extractor {wildcards.extractor} > {log} 2>&1"


# one rule per method, because methods differ in the records they write; ablations have `make ablations`
for spec in BASIC:

    rule:
        name: f"experiment_{spec.name}"
        message: f"experiment {spec.name} {{wildcards.category}} seed {{wildcards.seed}}"
        input:
            features=features(spec.extractor, "{category}"),
            code=sources("data_scripts/run_experiment.py", *head_files(spec)),
        output: records(spec, "{category}", "{seed}"),
        log: f"{LOGS}/{spec.name}-{{category}}-s{{seed}}.log",
        params:
            method=spec.name,
            settings=str([
                spec.config, spec.ablation, spec.standardize, spec.std_floor, spec.shots, spec.draw, spec.recompute,
                PROFILE.threads, PROFILE.device, PROFILE.precision,
            ]),
        threads: PROFILE.threads
        resources: gpu=GPU, mem_mb=MEMORY_MB, runtime=MINUTES,
        priority: 1 if spec.name == "nearest_neighbor" else 0  # the longest first, so that cores end together
        shell:
            "python data_scripts/run_experiment.py --profile {PROFILE.name} --method {params.method}"
            " --category {wildcards.category} --seed {wildcards.seed} > {log} 2>&1"


rule notebook:
    message: "notebook {wildcards.stem}"
    input:
        notebook="notebooks/{stem}.ipynb",
        profile=f"profiles/{PROFILE.name}.yaml",
        code=lambda wildcards: sources(f"notebooks/{wildcards.stem}.ipynb", "data_scripts/run_notebook.py"),
        features=FEATURES,
        weights=lambda wildcards: EMBEDDED if wildcards.stem == "03_extractors" else [],
        records=BASIC_RECORDS,
    output: f"{BOOK}/chapters/{{stem}}.ipynb",
    log: f"{LOGS}/notebook-{{stem}}.log",
    params:
        profile=PROFILE.name,
        curated=CURATED,
        failed=f"{WORK}/failed",
        example=EXAMPLE,
    threads: PROFILE.threads
    resources: gpu=GPU, mem_mb=MEMORY_MB, runtime=MINUTES,
    shell:
        "python data_scripts/run_notebook.py {input.notebook} {output} -p profile {params.profile}{params.example}"
        " --failed {params.failed} > {log} 2>&1"


rule overview:
    message: "opening figure"
    input:
        code=sources("data_scripts/make_overview.py"),
        features=FEATURES,
        records=[path for category in CFM.categories for path in records(CFM, category, CFM.seeds[0])],
    output: OVERVIEW,
    log: f"{LOGS}/overview.log",
    threads: PROFILE.threads
    resources: mem_mb=MEMORY_MB, runtime=60,
    shell: "python data_scripts/make_overview.py --profile {PROFILE.name} --output {output} > {log} 2>&1"

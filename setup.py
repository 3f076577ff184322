"""Package definition; the exact versions that were tested together stand in ``constraints.txt``."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    # PyAV below 18 crashes on some MPEG files, 19 changes names, 18 needs Python 3.11; decord is another reader
    "video": ["av>=18,<19; python_version >= '3.11'", "decord; platform_machine == 'x86_64'"],
    # av for the sounds of films and m4a
    "audio": ["soundfile", "torchaudio", "av>=18,<19; python_version >= '3.11'"],
    "images": ["open_clip_torch>=3", "torchmetrics>=1.9", "torch-fidelity>=0.4"],  # CLIP, FID and IS of made pictures
    "coco": ["pycocoevalcap>=1.2"],  # BLEU, METEOR, ROUGE-L, SPICE of COCO; the CIDEr of training needs nothing
    "gpu": ["xformers"],  # --attention-backend xformers; torch's own kernels need nothing
    "data": ["pyarrow>=15"],  # unival data pack of Hugging Face data sets (Arrow, Parquet)
    "fast": ["numba"],  # faster resizing of pictures, with the same pixels
    "demo": ["scikit-learn"],  # the quickstart's pictures of digits; its films and sounds need [video], [audio]
    "plot": ["matplotlib>=3.8"],  # pictures of unival merge --sweep
    "dev": [
        "pytest>=8",
        "pytest-timeout",
        "pytest-xdist",
        "hypothesis",
        "ruff",
        "mypy",
        "matplotlib",
        "pyarrow",
        "scikit-learn",
    ],
}

setup(
    name="unival-plugin",
    version="0.1.0",
    description="Unified image, video, audio and text models for stock fairseq",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["unival_plugin", "unival_plugin.*", "unival_cli", "unival_cli.*"]),
    package_data={"unival_cli": ["links.json"]},
    install_requires=[
        "torch>=2.10",
        "torchvision>=0.25",
        "fairseq-fixed==0.12.3.1",
        "timm>=1.0",
        "sentencepiece>=0.2",
        "safetensors>=0.4",
        "numpy>=1.24",
        "pillow>=10",
        "tqdm>=4.66",
        "PyYAML>=6",
        "tensorboardX>=2.6",  # without it every fairseq command begins with a line that asks for it
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["unival = unival_cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)

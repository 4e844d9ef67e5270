"""Where shared adapter files come from: the Hugging Face hub and plain web servers, checked before they are used."""

import hashlib
import re
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, build_opener

import torch
from mmengine.logging import print_log

from mmpeft.adapter_file import DamagedFileError
from mmpeft.files import hash_of, write_atomically
from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import download, once

SUM = r'#sha256=(?P<sum>[0-9a-fA-F]{64})'
HUB = re.compile(rf'hf://(?P<repo>[^/@#]+/[^/@#]+)/(?P<file>[^@#]+?)(@(?P<revision>[^#]+))?({SUM})?')
WEB = re.compile(rf'(?P<url>https?://[^#]+\.safetensors)({SUM})?')


def fetch(place: str, cache: Path | None = None) -> Path:
    """The local copy of a shared file.

    Args:
        place: ``hf://owner/repo/file.safetensors``, with ``@revision`` if it is not the main one, or
            ``https://host/file.safetensors``; with ``#sha256=`` and 64 digits the file must have that sum.
        cache: Where to keep what comes from the hub, if not in the hub's own cache.

    Raises:
        UserError: The place is malformed, or the file cannot be fetched.
        DamagedFileError: The file has another sum.
    """
    hub, web = HUB.fullmatch(place), WEB.fullmatch(place)
    if not hub and not web:
        raise UserError(
            f'{place} is no place of a shared file; they read hf://owner/repo/file.safetensors[@revision] or '
            'https://host/file.safetensors, each with #sha256=<64 hexadecimal digits> if wanted.'
        )
    path = _from_hub(hub['repo'], hub['file'], hub['revision'], cache) if hub else _from_web(web['url'])
    expected = (hub or web)['sum']
    if expected is not None:
        _check_sum(path, expected.lower(), place)
    return path


def fetch_base(place: str) -> Path:
    """The local copy of a base that only an adapter file names, in a folder of its own that no config looks into.

    Raises:
        UserError: The place is neither on the hub nor one of https, or the file cannot be fetched.
    """
    folder = folder_of(place)
    if place.startswith('hf://'):
        return fetch(place, folder)
    url = place.partition('#')[0]
    if not url.startswith('https://'):
        raise UserError(f'{url} is not fetched: a base that only an adapter file names has to come by https.')
    path = folder / ('base.safetensors' if url.endswith('.safetensors') else 'base.pth')
    once(path, lambda: _copy(url, path))
    return path


def folder_of(place: str) -> Path:
    """Where ``fetch_base`` keeps what comes from ``place``."""
    return Path(torch.hub.get_dir(), 'mmpeft', hashlib.sha256(place.encode()).hexdigest())


class _HttpsAlone(HTTPRedirectHandler):
    """Refuses to be led from https to anywhere else."""

    def redirect_request(self, request, file, code, message, headers, url):
        if not url.startswith('https://'):
            raise URLError(f'it leads to {url}, which is not https')
        return super().redirect_request(request, file, code, message, headers, url)


def _copy(url: str, path: Path) -> None:
    print_log(f'Downloading {url} to {path}', 'current')
    try:
        with build_opener(_HttpsAlone).open(url) as answer:
            write_atomically(path, lambda file: shutil.copyfileobj(answer, file))
    except (OSError, HTTPException) as error:
        raise UserError(f'Cannot download {url} ({error}).') from error


def _from_hub(repo: str, file: str, revision: str | None, cache: Path | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(f"hf://{repo}/{file} needs huggingface_hub: pip install 'mmpeft[hub]'.") from error
    try:
        return Path(hf_hub_download(repo, file, revision=revision, cache_dir=cache))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'Cannot fetch {file} of {repo} from the Hugging Face hub ({reason}). Without a connection, download it '
            'elsewhere and name the local file.'
        ) from error


def _from_web(url: str) -> Path:
    # Two servers may well have an adapters_last.safetensors each.
    name = f'{hashlib.sha256(url.encode()).hexdigest()[:12]}-{Path(urlparse(url).path).name}'
    return download(url, name=name)


def _check_sum(path: Path, expected: str, place: str) -> None:
    found = hash_of(path)
    if found != expected:
        raise DamagedFileError(
            f'{place.partition("#")[0]} has another content than the config expects: its SHA-256 is {found}, not '
            f'{expected}. It was kept as {path}; delete it to fetch it again.'
        )

"""Shared adapter files: a web server and a hub on this machine, in place of the real ones."""

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mmengine.runner import load_checkpoint
from test_checkpoint import detector, moved
from tiny import same, weights

import mmpeft
from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.sources import fetch

REVISION = 'a' * 40


class Files(BaseHTTPRequestHandler):
    """Serves ``server.files`` by path, with the headers that a client of the hub reads."""

    def do_HEAD(self):
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        for name, value in {
            'Content-Length': len(content or b''),
            'ETag': f'"{hashlib.sha256(content or b"").hexdigest()}"',
            'X-Repo-Commit': REVISION,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        return content

    def do_GET(self):
        content = self.do_HEAD()
        self.server.gets += 1
        if content is not None:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def point_hub_at(url, monkeypatch):
    template = f'{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
    monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr('huggingface_hub.utils._http.time.sleep', lambda seconds: None)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path / 'hub'))
    server = ThreadingHTTPServer(('127.0.0.1', 0), Files)
    server.files, server.gets, server.url = {}, 0, f'http://127.0.0.1:{server.server_port}'
    point_hub_at(server.url, monkeypatch)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hf'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def task(tmp_path):
    """A trained model, and the content of its adapter file."""
    model = moved(detector())
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    return model, (tmp_path / 'task.safetensors').read_bytes()


def loaded(place):
    model = detector()
    load_checkpoint(model, place, map_location='cpu')
    return model


def sum_of(content):
    return hashlib.sha256(content).hexdigest()


def test_mm_loads_an_adapter_file_from_a_web_server_once(server, task):
    model, server.files['/runs/task.safetensors'] = task
    for place in (
        f'{server.url}/runs/task.safetensors',
        f'{server.url}/runs/task.safetensors#sha256={sum_of(task[1])}',
    ):
        assert same(weights(loaded(place)), weights(model))
    assert server.gets == 1


def test_mm_loads_an_adapter_file_from_the_hub(server, task):
    model, content = task
    server.files['/owner/repo/resolve/main/sub/task.safetensors'] = content
    server.files[f'/owner/repo/resolve/{REVISION}/sub/task.safetensors'] = content
    for place in ('', f'@{REVISION}', f'#sha256={sum_of(content)}', f'@{REVISION}#sha256={sum_of(content).upper()}'):
        assert same(weights(loaded(f'hf://owner/repo/sub/task.safetensors{place}')), weights(model))


def test_files_of_one_name_from_two_folders_are_two_files(server, task):
    server.files['/a/task.safetensors'], server.files['/b/task.safetensors'] = task[1], b'other'
    paths = [fetch(f'{server.url}/{folder}/task.safetensors') for folder in 'ab']
    assert [path.read_bytes() for path in paths] == [task[1], b'other']


@pytest.mark.parametrize('place', ['{url}/task.safetensors', 'hf://owner/repo/task.safetensors'])
def test_a_file_with_another_sum_is_refused_before_it_is_read(place, server, task):
    server.files['/task.safetensors'] = server.files['/owner/repo/resolve/main/task.safetensors'] = task[1]
    model = detector()
    before = weights(model)
    with pytest.raises(mmpeft.DamagedFileError, match=f'its SHA-256 is {sum_of(task[1])}, not {"0" * 64}'):
        load_checkpoint(model, place.format(url=server.url) + '#sha256=' + '0' * 64)
    assert same(weights(model), before)


@pytest.mark.parametrize(
    'place',
    ['hf://repo/task.safetensors', 'hf://', 'ftp://host/task.safetensors', 'https://host/task.safetensors#sha256=12'],
)
def test_a_malformed_place_is_refused(place):
    with pytest.raises(UserError, match='no place of a shared file'):
        fetch(place)


@pytest.mark.parametrize('place', ['{url}/none.safetensors', 'hf://owner/repo/none.safetensors'])
def test_a_file_that_is_not_there_is_one_line(place, server):
    with pytest.raises(UserError, match='Cannot (download|fetch)'):
        fetch(place.format(url=server.url))


@pytest.mark.parametrize('place', ['http://127.0.0.1:9/task.safetensors', 'hf://owner/repo/task.safetensors'])
def test_without_a_connection_the_error_says_what_to_do(place, server, monkeypatch):
    point_hub_at('http://127.0.0.1:9', monkeypatch)
    with pytest.raises(UserError, match=r'Put the file at|name the local file'):
        fetch(place)


def test_without_huggingface_hub_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r"pip install 'mmpeft\[hub\]'"):
        fetch('hf://owner/repo/task.safetensors')

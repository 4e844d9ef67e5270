import pytest

from mmpeft.costs import PROCESS
from mmpeft.mm.reports.bank_costs import bank_costs, measure_bank, measure_separate, write_bank

DEMO = 'configs/demo/mona_swin-micro_digits.py'
pytestmark = pytest.mark.skipif(not PROCESS.exists(), reason='not Linux')


def test_switching_is_far_faster_than_loading_a_file(tmp_path):
    write_bank(DEMO, tmp_path, 2)
    bank, bank_peak, switch = measure_bank(str(tmp_path), 2)
    _, _, reload = measure_separate(str(tmp_path), 1)
    assert 0 < bank <= bank_peak and switch < reload / 10


@pytest.mark.slow
def test_more_tasks_take_less_memory_in_a_bank_than_as_separate_models():
    *_, one, four = bank_costs(DEMO, [1, 4]).splitlines()
    ratios = [float(row.split('|')[4]) for row in (one, four)]
    assert ratios[1] < ratios[0] < 1.5 and ratios[1] < 0.9

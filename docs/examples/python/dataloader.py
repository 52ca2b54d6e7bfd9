"""PyTorch's DataLoader, whose workers read a list of dicts: dataloader.py [plain]"""

import sys

import torch.utils.data

from catalogue import CATALOGUE


class Prices(torch.utils.data.Dataset):
    def __len__(self):
        return len(CATALOGUE)

    def __getitem__(self, index):
        return CATALOGUE[index]["price"]


if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(Prices(), batch_size=1000, num_workers=2, multiprocessing_context="fork")
    if "plain" not in sys.argv:
        import cowshed
        print(cowshed.freeze())
    print(sum(float(batch.sum()) for batch in loader))

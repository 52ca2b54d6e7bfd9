from multiprocessing import get_context
words = [str(i) * 3 for i in range(1_000_000)]
def total(part):
    return sum(len(word) for word in words[part::4])
if __name__ == "__main__":
    with get_context("fork").Pool(4) as pool:
        pool.map(total, range(4))

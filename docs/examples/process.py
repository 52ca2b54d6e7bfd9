from multiprocessing import Process, Queue
class Matcher(Process):
    def __init__(self, queue):
        super().__init__()
        self.queue = queue
        self.rules = {f"rule {i}": [f"pattern {i}.{j}" for j in range(10)] for i in range(50_000)}
    def run(self):
        self.queue.put(len(self.rules))
if __name__ == "__main__":
    queue = Queue()
    matcher = Matcher(queue)
    matcher.start()
    queue.get()
    matcher.join()

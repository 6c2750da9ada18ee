package org.kbnn.demo

import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.atomic.AtomicBoolean

/** The result of classifying a picture. */
sealed interface Outcome

data class Seen(
    val model: ModelEntry,
    val picture: Picture,
    val guesses: List<Guess>,
    val medianMs: Double,
    val p95Ms: Double,
    val inferences: Int,
) : Outcome

data class Failed(val message: String) : Outcome

/**
 * Classifies pictures with the newest model on a thread of its own, where [deliver] is called, too.
 *
 * Pictures that arrive while one is being classified are dropped: a camera sends more of them.
 */
class Analyzer(
    private val open: (ModelEntry) -> Classifier,
    private val deliver: (Outcome) -> Unit,
) : AutoCloseable {
    private val worker = Executors.newSingleThreadExecutor()
    private val busy = AtomicBoolean(false)
    private val latencies = LatencyWindow()
    private var model: Model? = null
    private var preprocessing: Preprocessing? = null
    private var classifier: Classifier? = null

    /** Switches to a model, with the labels and the input of its own file; latencies are counted from here on. */
    fun use(next: Model) = execute {
        classifier?.close()
        classifier = null
        latencies.clear()
        model = next
        preprocessing = Preprocessing(next.input)
        classifier = open(next.entry)
    }

    /** Classifies a picture unless another one is being classified. */
    fun offer(picture: Picture) {
        if (!busy.compareAndSet(false, true)) return
        execute {
            try {
                classify(picture)
            } finally {
                busy.set(false)
            }
        }
    }

    /** Classifies a picture after those that were submitted before. */
    fun submit(picture: Picture) = execute { classify(picture) }

    private fun classify(picture: Picture) {
        val loaded = classifier ?: return
        val used = model ?: return
        val tensor = preprocessing?.tensor(picture) ?: return
        val inference = loaded.classify(tensor)
        latencies.add(inference.milliseconds)
        val guesses = top(inference.outputs, used.entry.returnsProbabilities, used.labels, 3)
        deliver(Seen(used.entry, picture, guesses, latencies.median, latencies.p95, latencies.count))
    }

    private fun execute(task: () -> Unit) {
        try {
            worker.execute {
                try {
                    task()
                } catch (error: RuntimeException) {
                    // A model for another runtime or with another input: the user can switch to another model.
                    deliver(Failed("${model?.entry?.name}: ${error.message}"))
                } catch (_: OutOfMemoryError) {
                    deliver(Failed("${model?.entry?.name}: not enough memory for this picture or model"))
                } catch (error: LinkageError) {
                    deliver(Failed("the native runtime is missing for this device: ${error.message}"))
                }
            }
        } catch (_: RejectedExecutionException) {
            // The analyzer has been closed: the camera's last pictures need no answer.
        }
    }

    override fun close() {
        execute {
            classifier?.close()
            classifier = null
        }
        worker.shutdown()
    }
}

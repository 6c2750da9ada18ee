package org.kbnn.demo

import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.atomic.AtomicBoolean

/** What comes of a picture. */
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
 * Classifies pictures on a thread of its own, the newest model for the newest picture; [deliver] is called there.
 *
 * Pictures that come while one is being worked on are dropped: a camera sends more of them.
 */
class Analyzer(
    private val metadata: Metadata,
    private val open: (ModelEntry) -> Classifier,
    private val deliver: (Outcome) -> Unit,
) : AutoCloseable {
    private val worker = Executors.newSingleThreadExecutor()
    private val preprocessing = Preprocessing(metadata.input)
    private val busy = AtomicBoolean(false)
    private val latencies = LatencyWindow()
    private var model: ModelEntry? = null
    private var classifier: Classifier? = null

    /** Switches to a model; its latencies start anew. */
    fun use(entry: ModelEntry) = execute {
        classifier?.close()
        classifier = null
        latencies.clear()
        model = entry
        classifier = open(entry)
    }

    /** Classifies a picture unless one is being worked on. */
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

    /** Classifies a picture, after whatever is being worked on. */
    fun submit(picture: Picture) = execute { classify(picture) }

    private fun classify(picture: Picture) {
        val loaded = classifier ?: return
        val inference = loaded.classify(preprocessing.tensor(picture))
        latencies.add(inference.milliseconds)
        val guesses = top(inference.logits, metadata.labels, 3)
        deliver(Seen(model!!, picture, guesses, latencies.median, latencies.p95, latencies.count))
    }

    private fun execute(task: () -> Unit) {
        try {
            worker.execute {
                try {
                    task()
                } catch (error: RuntimeException) {
                    // A model for another runtime or with another input: the app goes on and can switch models.
                    deliver(Failed("${model?.name}: ${error.message}"))
                } catch (error: LinkageError) {
                    deliver(Failed("the native runtime is missing for this device: ${error.message}"))
                }
            }
        } catch (_: RejectedExecutionException) {
            // Closed meanwhile: the camera's last pictures need no answer.
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

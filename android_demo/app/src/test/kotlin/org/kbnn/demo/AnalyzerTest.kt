package org.kbnn.demo

import java.util.concurrent.CountDownLatch
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit.MILLISECONDS
import java.util.concurrent.TimeUnit.SECONDS
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class AnalyzerTest {
    private val input = InputSpec(1, 1, 1, 1, listOf(0f), listOf(1f))
    private val models = listOf("binary", "float32").map { model(it, listOf("dark", "bright"), input) }
    private val outcomes = LinkedBlockingQueue<Outcome>()
    private val opened = mutableListOf<Fake>()
    private var open: (ModelEntry) -> Classifier = { Fake().also(opened::add) }
    private val analyzer = Analyzer({ open(it) }, outcomes::put)

    /** Gives "bright" a logit that grows with its pixel. */
    private class Fake : Classifier {
        var closed = false

        override fun classify(tensor: FloatArray) = Inference(floatArrayOf(0f, tensor[0] - 128), 2.0)

        override fun close() {
            closed = true
        }
    }

    @AfterEach
    fun close() = analyzer.close()

    @Test
    fun `pictures become guesses with latencies`() {
        analyzer.use(models[0])
        analyzer.submit(grey(255))
        analyzer.submit(grey(0))
        val (bright, dark) = List(2) { next() as Seen }
        assertEquals("bright", bright.guesses.first().label)
        assertEquals("dark", dark.guesses.first().label)
        assertEquals(2, dark.inferences)
        assertEquals(2.0, dark.medianMs)
    }

    @Test
    fun `switching models closes the old one and counts latencies from there`() {
        analyzer.use(models[0])
        analyzer.submit(grey(1))
        next()
        analyzer.use(models[1])
        analyzer.submit(grey(1))
        val seen = next() as Seen
        assertEquals("float32" to 1, seen.model.name to seen.inferences)
        assertEquals(listOf(true, false), opened.map { it.closed })
    }

    @Test
    fun `a model that cannot be opened is reported and another one works`() {
        open = { if (it.name == "binary") throw IllegalArgumentException("no LceBconv2d") else Fake() }
        analyzer.use(models[0])
        assertEquals(Failed("binary: no LceBconv2d"), next())
        analyzer.submit(grey(1))
        analyzer.use(models[1])
        analyzer.submit(grey(1))
        assertTrue(next() is Seen)
    }

    @Test
    fun `each model has the labels and the normalization of its own file`() {
        val other = model("other", listOf("black", "white"), input.copy(mean = listOf(200f)))
        var seen = 0f
        open = {
            object : Classifier {
                override fun classify(tensor: FloatArray) = Inference(floatArrayOf(0f, tensor[0]), 1.0).also { seen = tensor[0] }

                override fun close() = Unit
            }
        }
        analyzer.use(models[0])
        analyzer.submit(grey(100))
        assertEquals("bright" to 100f, (next() as Seen).guesses.first().label to seen)
        analyzer.use(other)
        analyzer.submit(grey(100))
        assertEquals("black" to -100f, (next() as Seen).guesses.first().label to seen)
    }

    @Test
    fun `probabilities of a network that ends with softmax are shown as they are`() {
        open = {
            object : Classifier {
                override fun classify(tensor: FloatArray) = Inference(floatArrayOf(0.125f, 0.875f), 1.0)

                override fun close() = Unit
            }
        }
        for ((returnsProbabilities, confidence) in listOf(true to 0.875f, false to 0.6792f)) {
            // 1 / (1 + exp(0.125 - 0.875)) = 0.6792 is the softmax of the same outputs.
            analyzer.use(models[0].copy(entry = models[0].entry.copy(returnsProbabilities = returnsProbabilities)))
            analyzer.submit(grey(1))
            assertEquals(confidence, (next() as Seen).guesses.first().confidence, 1e-4f)
        }
    }

    @Test
    fun `running out of memory is reported and the next picture is classified`() {
        var full = true
        open = {
            object : Classifier {
                override fun classify(tensor: FloatArray): Inference {
                    if (full) throw OutOfMemoryError("heap")
                    return Inference(floatArrayOf(0f, 1f), 1.0)
                }

                override fun close() = Unit
            }
        }
        analyzer.use(models[0])
        analyzer.submit(grey(1))
        assertTrue("not enough memory" in (next() as Failed).message)
        full = false
        analyzer.submit(grey(1))
        assertTrue(next() is Seen)
    }

    @Test
    fun `a missing native runtime is reported`() {
        open = { throw UnsatisfiedLinkError("libtensorflowlite_jni.so") }
        analyzer.use(models[0])
        assertTrue("libtensorflowlite_jni.so" in (next() as Failed).message)
    }

    @Test
    fun `camera pictures are dropped while another one is classified`() {
        val slow = object : Classifier {
            val started = CountDownLatch(1)
            val mayFinish = CountDownLatch(1)

            override fun classify(tensor: FloatArray): Inference {
                started.countDown()
                mayFinish.await()
                return Inference(floatArrayOf(0f, 0f), 1.0)
            }

            override fun close() = Unit
        }
        open = { slow }
        analyzer.use(models[0])
        analyzer.offer(grey(1))
        slow.started.await()
        repeat(5) { analyzer.offer(grey(2)) }
        slow.mayFinish.countDown()
        assertEquals(1, (next() as Seen).inferences)
        assertNull(outcomes.poll(200, MILLISECONDS))
        // Afterwards pictures are taken again.
        analyzer.offer(grey(3))
        assertEquals(2, (next() as Seen).inferences)
    }

    @Test
    fun `after closing nothing happens`() {
        analyzer.use(models[0])
        analyzer.submit(grey(1))
        next()
        analyzer.close()
        analyzer.offer(grey(1))
        analyzer.use(models[1])
        assertNull(outcomes.poll(200, MILLISECONDS))
        assertTrue(opened.single().closed)
    }

    private fun next(): Outcome = checkNotNull(outcomes.poll(10, SECONDS)) { "nothing was delivered" }

    private fun model(name: String, labels: List<String>, input: InputSpec) =
        Model(ModelEntry(name, "$name.tflite", "00", 1000, 0.5, false), labels, input)

    private fun grey(level: Int) = Picture(1, 1, intArrayOf(level * 0x010101))
}

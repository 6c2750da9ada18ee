package org.kbnn.demo

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/** The outputs of one inference as the network returns them, and how long the network itself took. */
class Inference(val outputs: FloatArray, val milliseconds: Double)

/** A loaded model. Used by one thread at a time. */
interface Classifier : AutoCloseable {
    /** @throws IllegalArgumentException or [IllegalStateException] when the model cannot be run. */
    fun classify(tensor: FloatArray): Inference
}

/** A .tflite file in Larq Compute Engine's build of TensorFlow Lite, which has the binary operators. */
class TfLiteClassifier(model: ByteBuffer, threads: Int) : Classifier {
    // XNNPACK, which runs what is not binary, is off by default in the Java API.
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads).setUseXNNPACK(true))
    private val input = interpreter.getInputTensor(0)
    private val output = interpreter.getOutputTensor(0)
    private val inputBytes = ByteBuffer.allocateDirect(input.numBytes()).order(ByteOrder.nativeOrder())
    private val outputBytes = ByteBuffer.allocateDirect(output.numBytes()).order(ByteOrder.nativeOrder())

    override fun classify(tensor: FloatArray): Inference {
        require(tensor.size == input.numElements()) {
            "the model takes ${input.numElements()} values, the index says ${tensor.size}: export again"
        }
        write(tensor)
        outputBytes.rewind()
        interpreter.run(inputBytes, outputBytes)
        return Inference(read(), interpreter.lastNativeInferenceDurationNanoseconds / 1e6)
    }

    private fun write(tensor: FloatArray) {
        inputBytes.rewind()
        when (input.dataType()) {
            DataType.FLOAT32 -> for (value in tensor) inputBytes.putFloat(value)
            DataType.INT8 -> quantization(input).let { for (value in tensor) inputBytes.put(it.quantize(value)) }
            else -> throw IllegalArgumentException("an input of ${input.dataType()}: this app feeds float32 and int8")
        }
        inputBytes.rewind()
    }

    private fun read(): FloatArray {
        outputBytes.rewind()
        return when (output.dataType()) {
            DataType.FLOAT32 -> FloatArray(output.numElements()) { outputBytes.getFloat() }
            DataType.INT8 -> quantization(output).let { q -> FloatArray(output.numElements()) { q.real(outputBytes.get()) } }
            else -> throw IllegalArgumentException("an output of ${output.dataType()}: this app reads float32 and int8")
        }
    }

    private fun quantization(tensor: Tensor) =
        tensor.quantizationParams().let { Quantization(it.scale, it.zeroPoint) }

    override fun close() = interpreter.close()
}
